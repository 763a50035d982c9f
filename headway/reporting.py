"""What a forge shows of a job: a line beside the commit, and the text of a comment on a pull request.

Names of branches are whoever's who may push: nothing of theirs is read as markup.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
_MOST: Final = 140
_LINES: Final = {
    "pending": "On its way",
    "success": "Deployed",
    "failure": "Failed",
    "canceled": "Canceled",
    "ended": "This preview has ended",
}


def job_url(api_url: str, job_id: str) -> str:
    return f"{api_url}/v1/jobs/{job_id}"


def description(wanted: Json) -> str:
    """One line of at most 140 characters: how it stands, where it is, which job it was."""
    done = "Built" if wanted["built"] and wanted["state"] == "success" else _LINES[wanted["state"]]
    code = f" ({wanted['code']})" if wanted.get("code") else ""
    where = f": {wanted['url']}" if wanted.get("url") else ""
    job = f" – {wanted['job_id']}"
    short = f"{done}{code}"
    return short + (where if len(short + where + job) <= _MOST else "") + job


def target_url(wanted: Json, api_url: str) -> str:
    """The page that was deployed; of everything else the job."""
    return str(wanted.get("url") or job_url(api_url, wanted["job_id"]))


def mark(site_id: str) -> str:
    """What makes a comment ours: whoever has lost its number finds it by this."""
    return f"<!-- headway preview of {site_id} -->"


def comment(wanted: Json, site_id: str, api_url: str) -> str:
    """The whole comment, in Markdown."""
    # What ended a preview is its branch, not how its last job went.
    code = wanted.get("code") if wanted["state"] != "ended" else None
    state = _LINES[wanted["state"]] + (f" (`{code}`)" if code else "")
    rows = [
        ("State", state),
        ("Preview", wanted["url"] or "–"),
        ("Branch", _literal(wanted["branch"])),
        ("Commit", _literal(wanted["commit"][:12])),
        ("Job", f"[{wanted['job_id']}]({job_url(api_url, wanted['job_id'])})"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"{mark(site_id)}\n**{wanted['site']}**: {wanted['environment']}\n\n| | |\n|---|---|\n{table}\n"


def _literal(text: str) -> str:
    """As code: neither a mention, nor a link, nor the end of a table's cell."""
    kept = "".join(letter for letter in text if letter.isprintable() and letter not in "`|<>")
    return f"`{kept[:200]}`" if kept.strip() else "–"
