"""The projects: where each comes from, what was added to its files, and what its pages must say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.real.published import Source, as_bytes, generated, locked, npm_package, sdist

PNPM = "npx --yes pnpm@9 install --lockfile-only"
YARN = "npx --yes yarn@1.22.22 install --ignore-scripts --no-progress --non-interactive"
BERRY = "npx --yes @yarnpkg/cli-dist@4 install --mode=update-lockfile"

HIGHLIGHT = """[build]
command = "npm run demo"
output = "demo/_site"
"""
FLAT = """[build]
install = "npm install"
"""
FLASKR = """[run]
command = "flask --app flaskr run --host ${HOST:-0.0.0.0} --port $PORT"
release_command = "flask --app flaskr init-db"
health_check_path = "/auth/login"

[[mounts]]
path = "instance"
"""
HTTPBIN = """[build]
install = "uv pip install --python python3 --target .headway/site-packages '.[mainapp]'"

[run]
command = "gunicorn --bind ${HOST:-0.0.0.0}:$PORT httpbin:app"
health_check_path = "/get"
"""

# Without the second its build's id is chance.
NEXT = 'export default { output: "export", generateBuildId: () => process.env.SOURCE_DATE_EPOCH };\n'

# Every other path of it asks for a token.
FASTAPI = """[run]
health_check_path = "/docs"
"""


@dataclass(frozen=True)
class Project:
    """`pages` are fetched of the host, and say these words; `framework` is what the plan must have recognised."""

    make: Callable[[], Source]
    framework: str | None
    manager: str
    pages: Mapping[str, str]
    kind: str = "static"
    # Whether two builds gave the same bytes.
    alike: bool = True


def vite(template: str) -> Source:
    return npm_package("create-vite", f"template-{template}/")


def sveltekit() -> Source:
    """As its own documentation says for static hosting: another adapter, and every page made in the build.

    Its version is the time of the build, unless one says another.
    """
    words = "create made --template minimal --types jsdoc --no-add-ons --no-install"
    made = generated("sv", *words.split(" "))
    config = as_bytes(made.files["vite.config.js"]).replace(b"@sveltejs/adapter-auto", b"@sveltejs/adapter-static")
    config = config.replace(
        b"adapter: adapter()", b"adapter: adapter(), version: { name: process.env.SOURCE_DATE_EPOCH }"
    )
    changed = made.plus({"vite.config.js": config, "src/routes/+layout.js": "export const prerender = true;\n"})
    return changed.needing({"@sveltejs/adapter-static": "^3"})


def vitepress() -> Source:
    """The template of `vitepress init`, filled in."""
    made = npm_package("vitepress", "template/").without(".vitepress/")
    raw = as_bytes(made.files["index.md"]).decode()
    index = raw.replace("<%= title %>", "Herons").replace("<%= description %>", "Of the weir")
    index = index.partition("<% } else { %>")[0].replace("<% if (defaultTheme) { %>", "")
    package = json.dumps(
        {"name": "docs", "private": True, "type": "module", "scripts": {"docs:build": "vitepress build"}}
    )
    return made.plus({"index.md": index, "package.json": package}).needing({"vitepress": made.version})


def cra() -> Source:
    made = npm_package("cra-template")
    needs = json.loads(made.files["template.json"])["package"]["dependencies"]
    own = {
        "name": "app",
        "version": "0.1.0",
        "private": True,
        "scripts": {"start": "react-scripts start", "build": "react-scripts build"},
    }
    package = json.dumps(
        {
            **own,
            "dependencies": {**needs, "react": "^19", "react-dom": "^19", "react-scripts": "^5"},
            "eslintConfig": {"extends": ["react-app"]},
            "browserslist": {"production": [">0.2%", "not dead", "not op_mini all"]},
        }
    )
    below = npm_package("cra-template", "template/")
    return below.plus({"package.json": package})


def pelican() -> Source:
    """The blog among its samples, its settings under the name that `pelican-quickstart` gives them."""
    made = sdist("pelican", "samples/")
    return made.plus({"pelicanconf.py": made.files["pelican.conf.py"]}).without("pelican.conf")


PROJECTS: Mapping[str, Project] = {
    "vite-react": Project(lambda: locked(vite("react")), "Vite", "npm", {"/": "/assets/index-"}),
    "vite-vue": Project(lambda: locked(vite("vue"), YARN, "yarn.lock"), "Vite", "yarn 1", {"/": "/assets/index-"}),
    "vite-svelte": Project(lambda: locked(vite("svelte"), PNPM, "pnpm-lock.yaml"), "Vite", "pnpm", {"/": "/assets/"}),
    "vite-preact": Project(lambda: locked(vite("preact"), BERRY, "yarn.lock"), "Vite", "yarn 4", {"/": "/assets/"}),
    "astro": Project(
        # It imports what it does not list, which pnpm, its own manager, keeps from it; without pages it builds nothing.
        lambda: npm_package("astro-accelerator@5.10.19", "", "sample/").plus({"headway.toml": FLAT}),
        "Astro",
        "npm",
        {"/": "Astro Accelerator"},
    ),
    "eleventy": Project(
        lambda: npm_package("@11ty/eleventy-plugin-syntaxhighlight").plus({"headway.toml": HIGHLIGHT}),
        None,
        "npm",
        {"/test-markdown/": "language-js"},
    ),
    "docusaurus": Project(
        # Without a lock: npm leaves packages of other machines out of one that it only resolves, and refuses it then.
        lambda: npm_package("create-docusaurus", "templates/shared/", "templates/classic/"),
        "Docusaurus",
        "npm",
        {"/docs/intro/": "Tutorial Intro"},
    ),
    "vitepress": Project(
        vitepress,
        "VitePress",
        "npm",
        {"/markdown-examples.html": "Markdown Extension Examples"},
        # Its highlighter gives a line half a second of the clock: on a busy machine some have fewer colours.
        alike=False,
    ),
    "sveltekit": Project(sveltekit, "SvelteKit", "npm", {"/": "Welcome to SvelteKit"}),
    "next": Project(
        lambda: generated(
            "create-next-app",
            "made",
            "--js",
            "--empty",
            "--app",
            "--no-tailwind",
            "--no-eslint",
            "--no-src-dir",
            "--skip-install",
            "--disable-git",
            "--import-alias",
            "@/*",
            "--no-turbopack",
        ).plus({"next.config.mjs": NEXT}),
        "Next",
        "npm",
        {"/": "Hello World!"},
    ),
    "cra": Project(cra, "Create React App", "npm", {"/": "/static/js/main."}),
    "jinja2": Project(lambda: sdist("jinja2"), "Sphinx", "uv", {"/templates.html": "Template Designer", "/": "Jinja"}),
    "flask-docs": Project(lambda: sdist("flask"), "Sphinx", "uv", {"/quickstart.html": "Quickstart"}),
    "click": Project(lambda: sdist("click"), "Sphinx", "uv", {"/quickstart.html": "Quickstart"}),
    "pelican": Project(pelican, "Pelican", "uv", {"/": "Alexis"}),
    "express": Project(
        lambda: locked(generated("express-generator", "--view=pug", "--git", "made")),
        "express",
        "npm",
        {"/": "Welcome to Express"},
        "dynamic",
    ),
    "flaskr": Project(
        lambda: sdist("flask", "examples/tutorial/").plus({"headway.toml": FLASKR}),
        None,
        "uv",
        {"/": "Posts", "/auth/login": "Log In"},
        "dynamic",
    ),
    "httpbin": Project(
        lambda: sdist("httpbin").plus({"headway.toml": HTTPBIN}), None, "uv", {"/get": '"url"'}, "dynamic"
    ),
    "fastapi": Project(
        lambda: sdist("fastapi", "docs_src/bigger_applications/").plus(
            {"requirements.txt": "fastapi[standard]\n", "headway.toml": FASTAPI}
        ),
        "FastAPI",
        "uv",
        {"/docs": "swagger"},
        "dynamic",
    ),
}
