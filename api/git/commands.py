"""What a push asks for: its options, and each of its refs as far as git and the rows can judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adapters.githost.pushhead import ZERO
from headway.errors import HeadwayError
from store.slugs import is_branch_name

HEADS: Final = "refs/heads/"
TAGS: Final = "refs/tags/"


@dataclass(frozen=True)
class Options:
    """`-o env=NAME`, `-o clean`, `-o skip`, `-o no-wait`."""

    env: str | None = None
    clean: bool = False
    skip: bool = False
    wait: bool = True


def read_options(given: Sequence[str]) -> Options:
    """Raises push.option_unknown."""
    env, flags = None, set()
    for one in given:
        name, equals, value = one.partition("=")
        if name == "env" and value and len(value) <= 100 and value.isprintable():
            env = value
        elif name in ("clean", "skip", "no-wait") and not equals:
            flags.add(name)
        else:
            raise HeadwayError("push.option_unknown", f"There is no push option {shown(one)}.")
    if "skip" in flags and (env or "clean" in flags):
        raise HeadwayError("push.option_unknown", "What is skipped is neither built nor put anywhere.")
    return Options(env, "clean" in flags, "skip" in flags, "no-wait" not in flags)


@dataclass(frozen=True)
class Command:
    """One ref. `old` and `new` are None for "not there"."""

    old: str | None
    new: str | None
    ref: str

    @classmethod
    def of(cls, words: Sequence[str]) -> Command:
        old, new, ref = words
        return cls(None if set(old) == {"0"} else old, None if set(new) == {"0"} else new, ref)

    @property
    def is_tag(self) -> bool:
        return self.ref.startswith(TAGS) and is_branch_name(self.ref.removeprefix(TAGS))

    @property
    def branch(self) -> str:
        """Raises push.ref_unsupported and ref.invalid."""
        if not self.ref.startswith(HEADS):
            raise HeadwayError("push.ref_unsupported", f"{shown(self.ref)} is neither a branch nor a tag.")
        name = self.ref.removeprefix(HEADS)
        if not is_branch_name(name) or not name.isprintable():
            raise HeadwayError("ref.invalid", f"{shown(name)} is no name for a branch.")
        return name


def shown(text: str) -> str:
    """A stranger's text on one line of a terminal: no controls, and nothing that turns a line round."""
    return "".join(one if one.isprintable() else "?" for one in text[:120])


__all__ = ["HEADS", "ZERO", "Command", "Options", "read_options", "shown"]
