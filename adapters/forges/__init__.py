"""What is said to forges: statuses of commits and one comment on each pull request. GitHub, GitLab, Gitea and kin."""
