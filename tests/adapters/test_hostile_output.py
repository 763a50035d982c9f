"""What a hostile build may leave as its output: each piece is a named refusal, and the next build is unaffected."""

# ruff: noqa: F811
from __future__ import annotations

import pytest

from adapters.sandbox import capabilities
from tests.adapters.test_produce import Platform, command, objects, platform  # noqa: F401

pytestmark = pytest.mark.skipif(not capabilities().ok, reason="no sandbox here")


def the_next_build_works(platform: Platform) -> None:
    platform.repo.commit(command("mkdir dist; echo fine > dist/index.html"))
    output = platform.build()
    assert platform.content(output.manifest_sha256, "index.html") == b"fine\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ('python3 -c \'open("dist/sparse", "wb").truncate(4 << 30)\'', "build.step_failed", "exit code 1"),
        ("touch \"dist/$(printf 'a\\nb')\"", "build.output_invalid", "control character"),
        ("touch \"dist/$(printf 'caf\\351')\"", "build.output_invalid", "not UTF-8"),
        ("mkfifo dist/pipe", "build.output_invalid", "a pipe"),
        (
            "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('dist/s')\"",
            "build.output_invalid",
            "a socket",
        ),
        ("mknod dist/disk b 254 0", "build.step_failed", "exit code 1"),
        ("mknod dist/null c 1 3", "build.step_failed", "exit code 1"),
        ("ln /usr/bin/env dist/env", "build.step_failed", "exit code 1"),
        ("ln /etc/passwd dist/passwd", "build.step_failed", "exit code 1"),
        ("ln -s /proc/self/environ dist/environ", "build.output_invalid", "absolute path"),
        ("ln -s ../../../etc dist/etc", "build.output_invalid", "leaves the output"),
        ("ln -s . dist/s; ln -s s/../.. dist/out", "build.output_invalid", "leaves the output"),
        ("rm -r dist; ln -s / dist", "build.output_invalid", "symbolic link"),
        ("cd dist; for i in $(seq 70); do mkdir d; cd d; done; touch x", "build.output_invalid", "folders deep"),
        ("cd /; rm -rf /workspace/* /workspace/.[!.]*; true", "build.output_missing", ""),
    ],
)
def test_pieces_that_no_artifact_may_hold(platform: Platform, script: str, code: str, says: str) -> None:
    error = platform.failure(command(f"mkdir dist; echo x > dist/index.html; {script}"))
    assert (error.type, says in error.message) == (code, True), error.message
    the_next_build_works(platform)


def test_one_sparse_file_of_four_gigabytes_is_named(platform: Platform) -> None:
    error = platform.failure(command("mkdir dist; truncate -s 4G dist/sparse"))
    assert (error.type, "bytes" in error.message) == ("build.disk_full", True)
    the_next_build_works(platform)


def test_setuid_bits_owners_and_hard_links_within_are_harmless(platform: Platform) -> None:
    platform.repo.commit(
        command("mkdir dist; cp /bin/true dist/su; chmod 6755 dist/su; echo x > dist/a; ln dist/a dist/b")
    )
    files = {one.path: one for one in platform.manifest(platform.build().manifest_sha256).files}
    assert {path: one.mode for path, one in files.items()} == {"a": "644", "b": "644", "su": "755"}
    assert files["a"].sha256 == files["b"].sha256


@pytest.mark.slow
def test_a_daemon_that_goes_on_writing_is_gone_before_the_output_is_read(platform: Platform) -> None:
    script = (
        "mkdir dist; echo built > dist/index.html; "
        "(setsid sh -c 'while :; do echo late > dist/index.html; done' >/dev/null 2>&1 &); sleep 0.2"
    )
    platform.repo.commit(command(script))
    output = platform.build()
    assert platform.content(output.manifest_sha256, "index.html") in (b"late\n", b"")
    the_next_build_works(platform)


@pytest.mark.slow
def test_a_hundred_thousand_files_and_one(platform: Platform) -> None:
    script = "mkdir dist; python3 -c \"for i in range(100001): open('dist/%d' % i, 'w')\""
    error = platform.failure(command(script))
    assert (error.type, "100000 files" in error.message) == ("build.output_invalid", True)
    the_next_build_works(platform)
