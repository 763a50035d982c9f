"""The one program that fetches: it runs inside the sandbox, once per build, with git, sh and tar of the machine.

It gets everything by environment variables (HW_*), writes results to stdout as `word value` lines, and git's own
complaints to stderr. HW_MIRROR is the site's bare mirror, HW_TREE the empty workspace.
"""

from __future__ import annotations

from typing import Final

FETCH_FAILED: Final = 80
EMPTY: Final = 81
NO_REF: Final = 82
TOO_LARGE: Final = 83
BAD_TREE: Final = 84
BROKEN: Final = 85

# What git tolerates in old public histories and what harms nobody; everything else that fsck knows is refused.
HARMLESS: Final = (
    *("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "emptyName", "extraHeaderEntry"),
    *("missingEmail", "missingNameBeforeEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail"),
    *("missingTaggerEntry", "badTagName", "nullSha1", "zeroPaddedDate", "zeroPaddedFilemode", "badFilemode"),
)

# The configuration that git reads instead of any other. `safe.directory` only works from a file. Where the other side
# is a folder here, its half of the transfer reads it too: what goes through a pipe is not worth a search for likeness.
CONFIG: Final = """\
[safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	askPass = /bin/false
	logAllRefUpdates = false
	fsync = none
[credential]
	helper =
[protocol]
	allow = never
[protocol "https"]
	allow = always
[protocol "ssh"]
	allow = always
[protocol "file"]
	allow = always
[http]
	followRedirects = false
	lowSpeedLimit = 1000
	lowSpeedTime = 30
[transfer]
	fsckObjects = true
	unpackLimit = 1
[fetch]
	recurseSubmodules = false
	writeCommitGraph = false
[gc]
	auto = 0
[maintenance]
	auto = false
[pack]
	windowMemory = 128m
	window = 0
	threads = 2
[tar]
	umask = 0002
[fetch "fsck"]
""" + "".join(f"\t{name} = ignore\n" for name in HARMLESS)

# A repository may not decide how it is archived: source_sha256 is of the commit's own files.
_ATTRIBUTES: Final = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"

_HEAD: Final = r"""
set -u
umask 022
temp=$(mktemp -d) || exit 85
trap 'rm -rf "$temp"' EXIT
export GIT_DIR="$HW_MIRROR" GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$temp/gitconfig" GIT_TERMINAL_PROMPT=0 \
  GIT_LFS_SKIP_SMUDGE=1 GIT_OPTIONAL_LOCKS=0 GIT_ALLOW_PROTOCOL="$HW_PROTOCOL" LC_ALL=C
# The site's own keys and no other. A host is known by the key that it showed first.
keys=
for key in "$HW_ACCESS"/key-*; do
  [ ! -f "$key" ] || keys="$keys -o IdentityFile='$key'"
done
export GIT_SSH_COMMAND="ssh -F none -o BatchMode=yes -o ConnectTimeout=15 -o StrictHostKeyChecking=accept-new \
  -o UserKnownHostsFile='$HW_MIRROR/known_hosts' -o IdentityAgent=none -o IdentitiesOnly=yes$keys"
printf %s "$HW_CONFIG" >"$temp/gitconfig"
ulimit -f "$HW_MAX_BLOCKS" 2>/dev/null
"""

# Which commit each branch of the remote is at. Nothing is fetched.
LOOK: Final = (
    _HEAD
    + r"""
[ -f "$HW_MIRROR/HEAD" ] || git init -q --bare --template= "$HW_MIRROR" || exit 85
unset GIT_DIR
cd "$HW_TREE" || exit 85
git ls-remote --heads -- "$HW_URL" || exit 80
"""
)

SCRIPT: Final = (
    _HEAD
    + r"""

# A fetch that came to no end leaves locks and half packs; nobody else writes here, we hold the mirror's lock.
[ ! -e "$HW_MIRROR/busy" ] || find "$HW_MIRROR" \( -name '*.lock' -o -name 'tmp_*' \) -type f -delete
for odd in hooks info/grafts objects/info/alternates; do
  [ ! -e "$HW_MIRROR/$odd" ] || rm -rf "$HW_MIRROR/$odd"
done
# The names of objects are sha1 or sha256, as the remote has them; the mirror has one kind.
set_up() {
  [ -f "$HW_MIRROR/HEAD" ] || git init -q --bare --template= --object-format="$1" "$HW_MIRROR" || exit 85
  [ -d "$HW_MIRROR/info" ] || mkdir "$HW_MIRROR/info"
  case $1 in
    sha256) printf '[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectFormat = sha256\n' ;;
    *) printf '[core]\n\trepositoryformatversion = 0\n\tbare = true\n' ;;
  esac >"$HW_MIRROR/config"
  printf '"""
    + _ATTRIBUTES.replace("\n", r"\n")
    + r"""' >"$HW_MIRROR/info/attributes"
  printf 'ref: refs/heads/%s\n' "$HW_BRANCH" >"$HW_MIRROR/HEAD"
}
format=sha1
[ ! -f "$HW_MIRROR/config" ] || while read -r line; do
  case $line in 'objectFormat = sha256') format=sha256 ;; esac
done <"$HW_MIRROR/config"
set_up $format

if [ -n "${HW_WANTED:-}" ]; then
  git cat-file --batch --buffer <"$HW_WANTED" >"$HW_TREE/more" || exit 85
  exit 0
fi

get() {
  git fetch -q --no-tags --no-write-fetch-head --no-recurse-submodules --no-auto-maintenance --update-head-ok \
    --update-shallow "$@"
}
get_all() {
  get --prune --force -- "$HW_URL" '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
}
resolve() {
  # A whole object name resolves without being there.
  case $1 in
    *[!0-9a-f]*) git rev-parse --verify -q --end-of-options "$1" 2>/dev/null ;;
    $whole) git rev-parse --verify -q --end-of-options "$1^{object}" 2>/dev/null ;;
    *) git rev-parse --verify -q --end-of-options "$1" 2>/dev/null ;;
  esac
}

over=
trap 'rm -rf "$temp" $over' EXIT
: >"$HW_MIRROR/busy"
if ! get_all 2>"$temp/said"; then
  # Another kind of names than the mirror has: what lies there is of no use.
  grep -q 'mismatched algorithms' "$temp/said" || { cat "$temp/said" >&2; exit 80; }
  if [ $format = sha1 ]; then format=sha256; else format=sha1; fi
  find "$HW_MIRROR" -mindepth 1 ! -name known_hosts ! -name busy -delete
  set_up $format
  get_all || exit 80
fi
over=$HW_MIRROR/busy
[ ! -s "$temp/said" ] || cat "$temp/said" >&2
# As many characters as a whole object name has.
whole=????????????????????????????????????????
[ $format = sha1 ] || whole=$whole????????????????????????

ref=$HW_REF
if [ -z "$ref" ]; then
  ref=refs/heads/$HW_BRANCH
  if ! resolve "$ref" >/dev/null; then
    ref=$(git ls-remote --symref -- "$HW_URL" HEAD | sed -n 's/^ref: \(.*\)\tHEAD$/\1/p;q')
    [ -n "$ref" ] && printf 'note-branch %s\n' "$ref"
  fi
fi
# A tag that has a branch's name does not take its place, as git would have it: rules are about branches.
oid=
case $ref in
  refs/*) ;;
  *[!0-9a-f]*) if oid=$(resolve "refs/heads/$ref"); then ref=refs/heads/$ref; fi ;;
esac
[ -n "$oid" ] || oid=$(resolve "$ref")
if [ -z "$oid" ]; then
  # A ref outside of branches and tags, or a commit that no ref leads to: the remote may still give it.
  case $ref in
    refs/*) get -- "$HW_URL" "+$ref:$ref" 2>/dev/null ;;
    *[!0-9a-f]*) ;;
    $whole) get -- "$HW_URL" "$ref" 2>/dev/null ;;
  esac
  oid=$(resolve "$ref")
fi
if [ -z "$oid" ]; then
  [ -n "$(git for-each-ref --count=1)" ] || exit 81
  exit 82
fi
case $oid in *[!0-9a-f]*) exit 82 ;; esac
commit=$(git rev-list -1 --format=%ct "$oid") || { git cat-file -e "$oid" 2>/dev/null && exit 82; exit 85; }
[ -n "$commit" ] || exit 82
time=${commit##*
}
commit=${commit%%
*}
commit=${commit#commit }
echo "commit $commit"
echo "time $time"
if [ "$commit" = "${HW_UNLESS:-}" ]; then
  echo "same 1"
  exit 0
fi

# What is only looked at and handed on needs no files: git's list of it, and the contents that nobody knows yet.
[ $format = sha1 ] || HW_KNOWN=
at=$temp
[ -z "${HW_KNOWN:-}" ] || at=$HW_TREE
git ls-tree -r -z --full-tree "$commit" >"$at/tree" &
listing=$!
git ls-tree -r -l --full-tree "$commit" >"$temp/long" || exit 85
facts=$(awk -v most_files="$HW_MAX_FILES" -v most_bytes="$HW_MAX_BYTES" -v known="${HW_KNOWN:-}" \
  -v wanted="$temp/wanted" -v most="$HW_LIST_BYTES" '
  BEGIN { if (known != "") { printf "" > wanted; while ((getline id < known) > 0) ids[id] } }
  $2 == "commit" { sub(/^[^\t]*\t/, ""); if (++subs <= 20) print "submodule " $0; next }
  { files++; bytes += $4 }
  known != "" && $2 == "blob" && !($3 in seen) {
    telling = $0 ~ /[\t\/](headway\.toml|Procfile|package\.json|pyproject\.toml|requirements\.txt|mkdocs\.yml)$/
    if (telling || !($3 in ids)) { seen[$3]; print $3 > wanted; brought += $4 }
  }
  { sub(/^[^\t]*\t/, "") }
  # A remote that speaks the old protocol of plain files is spared git'"'"'s own check of what it sends.
  tolower($0) ~ /(^|["\/])(\.|\.\.|\.git)(["\/]|$)/ { tricks = 1 }
  { if ($0 ~ /(^|\/)\.gitattributes$/) attributes = 1 }
  END {
    printf "files %d\nbytes %.0f\n", files, bytes
    if (attributes) print "attributes 1"
    if (brought > most) print "whole 1"
    if (tricks) exit 84
    if (files > most_files || bytes > most_bytes) exit 83
  }' "$temp/long")
verdict=$?
# Not echo: dash's turns the \n of a quoted path into a line, and a path could then say what the source's digest is.
printf '%s\n' "$facts"
[ $verdict = 0 ] || exit $verdict

pointer='version https://git-lfs.github.com/spec/v1'
wait $listing || exit 85
read -r sum _ <<END
$(sha256sum <"$at/tree")
END
echo "listing $sum"
if [ "$at" = "$HW_TREE" ]; then
  case $facts in
    *"attributes 1"* | *"whole 1"*) ;;
    *)
      git cat-file --batch --buffer <"$temp/wanted" >"$HW_TREE/blobs" || exit 85
      # A new pointer is told by its path, which only files have.
      if ! grep -qaxF "$pointer" "$HW_TREE/blobs"; then
        echo "listed 1"
        exit 0
      fi
      ;;
  esac
  rm -f "$HW_TREE/tree" "$HW_TREE/blobs"
fi

mkfifo "$temp/tar"
sha256sum <"$temp/tar" >"$temp/sum" &
{ git archive --format=tar "$commit" || echo failed >"$temp/failed"; } | tee "$temp/tar" |
  tar -xf - -C "$HW_TREE" --no-same-owner --no-same-permissions
unpacked=$?
wait
[ ! -e "$temp/failed" ] || exit 85
[ $unpacked = 0 ] || exit 84
read -r sum _ <"$temp/sum"
echo "source $sum"

# With attributes a pointer may carry extensions; without, one that was copied here is as git-lfs writes them.
most=201
case $facts in *"attributes 1"*) most=1024 ;; esac
(
  cd "$HW_TREE" &&
    find . -type f -size +99c -size -${most}c -exec grep -lxF "$pointer" {} + |
    head -n 20 | sed -n 's/^\.\//lfs /p' # what else stands there is the rest of a name that has lines
)
set -- "$HW_MIRROR"/objects/pack/*.pack
if [ $# -gt 40 ]; then git repack -adq --window=10 2>/dev/null; fi
exit 0
"""
)
