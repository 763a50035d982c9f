"""One small tree for each kind of project that is known: only what detection looks at."""

from __future__ import annotations

import json
from typing import Any, Final

Tree = dict[str, str]


def package(build: str | None = "x", start: str | None = None, **more: Any) -> str:
    scripts = {name: text for name, text in (("build", build), ("start", start)) if text}
    return json.dumps({"name": "x", "scripts": scripts, **more})


def needs(*names: str, **more: Any) -> dict[str, Any]:
    return {"dependencies": dict.fromkeys(names, "*"), **more}


FLASK: Final = 'from flask import Flask\n\napp = Flask(__name__)\n\n@app.get("/")\ndef index():\n    return "x"\n'
FASTAPI: Final = "import fastapi\n\napi: fastapi.FastAPI = fastapi.FastAPI()\n"
PYPROJECT: Final = '[project]\nname = "x"\nversion = "1"\ndependencies = ["fastapi[standard]>=0.100"]\n'
BACKEND: Final = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
NPM: Final = {"package-lock.json": "{}"}
PLUG_N_PLAY: Final = {"yarn.lock": "__metadata:\n  version: 8\n", ".yarnrc.yml": "nodeLinker: pnp\n"}

STATIC: Final[dict[str, Tree]] = {
    "plain": {"index.html": "x"},
    "vite": {"package.json": package(**needs("vite", "vue")), **NPM, "index.html": "x"},
    "vite-pnpm": {"package.json": package(**needs("vite")), "pnpm-lock.yaml": "lockfileVersion: '9.0'\n"},
    "vite-pnpm-pinned": {"package.json": package(**needs("vite", packageManager="pnpm@10.4.1+sha512.ab"))},
    "vite-yarn": {"package.json": package(**needs("vite")), "yarn.lock": "# yarn lockfile v1\n"},
    "vite-berry": {"package.json": package(**needs("vite")), "yarn.lock": "__metadata:\n  version: 8\n"},
    "vite-plug-n-play": {"package.json": package(**needs("vite")), **PLUG_N_PLAY},
    "astro-plug-n-play-no-script": {"package.json": package(build=None, **needs("astro")), **PLUG_N_PLAY},
    "vite-zero-install": {"package.json": package(**needs("vite")), **PLUG_N_PLAY, ".yarn/cache/vite.zip": "x"},
    "vite-no-script": {"package.json": package(build=None, **needs("vite"))},
    "next-export": {
        "package.json": package("next build", "next start", **needs("next", "react")),
        "next.config.mjs": "export default { output: 'export' }",
        **NPM,
    },
    "vite-two-locks": {
        "package.json": package(**needs("vite", packageManager="yarn@1.22.22")),
        "yarn.lock": "# v1\n",
        **NPM,
    },
    "vite-bun": {"package.json": package("bunx vite build", **needs("vite")), "bun.lock": "{}"},
    "angular": {
        "package.json": package("ng build", "ng serve", **needs("@angular/core", "express")),
        "angular.json": json.dumps({"projects": {"ui": {"projectType": "library"}, "shop": {"architect": {}}}}),
        **NPM,
    },
    "astro": {"package.json": package("astro build", "astro dev", **needs("astro")), **NPM},
    "sveltekit": {"package.json": package(**needs("@sveltejs/kit", "@sveltejs/adapter-static", "vite")), **NPM},
    "docusaurus": {"package.json": package(start="docusaurus start", **needs("@docusaurus/core")), **NPM},
    "eleventy": {"package.json": package(None, "eleventy --serve", **needs("@11ty/eleventy")), **NPM},
    "cra": {"package.json": package(start="react-scripts start", **needs("react-scripts")), **NPM},
    "vitepress": {
        "package.json": json.dumps({"scripts": {"docs:build": "vitepress build docs"}, **needs("vitepress")}),
        **NPM,
    },
    "mkdocs": {"mkdocs.yml": "site_name: x\ntheme:\n  name: material\n", "docs/index.md": "x"},
    "mkdocs-pinned": {"mkdocs.yml": "site_name: x\n", "requirements.txt": "mkdocs==1.6.1\n", "docs/index.md": "x"},
    "sphinx": {
        "docs/conf.py": 'project = "x"\nhtml_theme = "furo"\n',
        "docs/requirements.txt": "sphinx\n",
        "pyproject.toml": PYPROJECT + BACKEND,
    },
    "sphinx-uv-group": {
        "docs/conf.py": 'project = "x"\n',
        "pyproject.toml": PYPROJECT
        + BACKEND
        + '[dependency-groups]\ndocs = ["sphinx<9", {include-group = "look"}]\nlook = ["furo"]\n',
        "uv.lock": 'version = 1\n[[package]]\nname = "sphinx"\nversion = "8"\n',
    },
    "sphinx-group": {
        "docs/conf.py": 'project = "x"\n',
        "pyproject.toml": PYPROJECT + BACKEND + "[dependency-groups]\ndocs = [\"myst-parser; python_version > '3'\"]\n",
    },
    "sphinx-lock-without-group": {
        "docs/conf.py": 'project = "x"\n',
        "pyproject.toml": PYPROJECT + BACKEND,
        "uv.lock": 'version = 1\n[[package]]\nname = "sphinx"\nversion = "8"\n',
    },
    "mkdocs-extra": {
        "mkdocs.yml": "site_name: x\n",
        "pyproject.toml": PYPROJECT + BACKEND + '[project.optional-dependencies]\ndocs = ["mkdocs>=1.5"]\n',
    },
    "mkdocs-poetry-group": {
        "mkdocs.yml": "site_name: x\n",
        "pyproject.toml": '[tool.poetry.group.docs.dependencies]\nmkdocs = "*"\n',
        "poetry.lock": '[[package]]\nname = "mkdocs"\nversion = "1"\ngroups = ["docs"]\n',
    },
    "pelican": {"pelicanconf.py": "SITENAME = 'x'", "publishconf.py": "", "requirements.txt": "pelican[markdown]\n"},
    "express-with-output": {
        "headway.toml": '[build]\noutput = "dist"',
        "package.json": package(start="node server.js", **needs("express")),
    },
    "command-that-installs": {
        "headway.toml": '[build]\ncommand = "npm ci && npm run site"',
        "package.json": package(**needs("vite")),
        **NPM,
    },
    "command-and-dependencies": {
        "headway.toml": '[build]\ncommand = "python3 build.py"\noutput = "site"',
        "requirements.txt": "mistune\n",
    },
    "monorepo": {
        "headway.toml": '[build]\nroot = "web"',
        "web/package.json": package(**needs("vite")),
        "api/app.py": FLASK,
    },
}

DYNAMIC: Final[dict[str, Tree]] = {
    "express-plug-n-play": {
        "package.json": package(None, "node server.js", dependencies={"express": "5"}),
        **PLUG_N_PLAY,
    },
    "run-command": {"headway.toml": '[run]\ncommand = "./serve --fast"\nport = 8080', "serve": "x"},
    "processes": {"headway.toml": '[processes]\nweb = "./serve"\nworker = "./work | tee log"', "serve": "x"},
    "procfile": {
        "Procfile": "# comment\nweb: gunicorn app:app\nworker: python3 work.py\nrelease: python3 migrate.py && echo\n",
        "requirements.txt": "gunicorn\n",
    },
    "flask": {"app.py": FLASK, "requirements.txt": "Flask==3\ngunicorn>=20 # server\n"},
    "flask-waitress": {"web/__init__.py": FLASK, "requirements.txt": "-r base.txt\n", "base.txt": "waitress\n"},
    "flask-factory": {
        "shop/__init__.py": "from flask import Flask\n\ndef create_app():\n    return Flask(__name__)\n",
        "requirements.txt": "flask\ngunicorn\n",
    },
    "fastapi": {"main.py": FASTAPI, "pyproject.toml": PYPROJECT},
    "fastapi-src": {"src/x/__init__.py": "", "src/x/main.py": FASTAPI, "pyproject.toml": PYPROJECT + BACKEND},
    "fastapi-uv": {
        "main.py": FASTAPI,
        "pyproject.toml": PYPROJECT,
        "uv.lock": 'version = 1\n[[package]]\nname = "uvicorn"\nversion = "1"\n',
    },
    "fastapi-poetry": {
        "main.py": FASTAPI,
        "pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\nfastapi = "*"\nhypercorn = "*"\n',
        "poetry.lock": '[[package]]\nname = "hypercorn"\nversion = "1"\n',
    },
    "django": {
        "manage.py": "",
        "shop/__init__.py": "",
        "shop/wsgi.py": "application = get_wsgi_application()\n",
        "requirements.txt": "django\ngunicorn\n",
        "package.json": package("vite build", **needs("vite")),
        "package-lock.json": "{}",
    },
    "wsgi": {"app.py": "def application(environ, start_response):\n    pass\n", "requirements.txt": "waitress\n"},
    "aiohttp-script": {
        "app.py": "from aiohttp import web\n\nif __name__ == '__main__':\n    web.run_app(web.Application())\n",
        "requirements.txt": "aiohttp\n",
    },
    "streamlit": {"app.py": "import streamlit as st\n\nst.title('x')\n", "requirements.txt": "streamlit\n"},
    "gradio": {
        "main.py": 'import gradio as gr\n\nif __name__ == "__main__":\n    gr.Blocks().launch()\n',
        "requirements.txt": "gradio\n",
    },
    "express": {"package.json": package(None, "NODE_ENV=production node server.js", **needs("express")), **NPM},
    "express-built": {"package.json": package("tsc", "node dist/server.js", **needs("express")), **NPM},
    "express-no-script": {"package.json": package(None, **needs("express"), main="src/main.js"), "src/main.js": "x"},
    "node": {"package.json": package(None, "node server.js"), "server.js": "x"},
    "node-hooks": {"package.json": json.dumps({"scripts": {"prestart": "node seed.js", "start": "node server.js"}})},
    "node-built-before-its-start": {
        "package.json": json.dumps(
            {"scripts": {"build": "tsc", "prestart": "npm run build", "start": "node dist/x.js"}, **needs("express")}
        ),
        **NPM,
    },
    "node-started-by-a-tool": {
        "package.json": package(
            "nest build", "nest start", **needs("@nestjs/core", devDependencies={"@nestjs/cli": "*"})
        ),
        **NPM,
    },
    "node-started-in-production": {
        "package.json": json.dumps(
            {
                "scripts": {"build": "nest build", "start": "nest start", "start:prod": "node dist/main"},
                **needs("@nestjs/core", devDependencies={"@nestjs/cli": "*"}),
            }
        ),
        **NPM,
    },
    "node-read-by-a-tool": {
        "package.json": package(
            None, "node --import tsx src/x.ts", **needs("@hono/node-server", devDependencies={"tsx": "*"})
        ),
        **NPM,
    },
    "node-tool-by-procfile": {
        "package.json": json.dumps(
            {"scripts": {"serve": "tsx x.ts"}, **needs("express", devDependencies={"tsx": "*", "jest": "*"})}
        ),
        "Procfile": "web: npm run serve\n",
        **NPM,
    },
    "node-odd-main": {"package.json": package(None, **needs("koa"), main="my app.js"), "my app.js": "x"},
    "next": {"package.json": package("next build", "next start", **needs("next")), "pnpm-lock.yaml": ""},
    "nuxt": {"package.json": package("nuxt build", **needs("nuxt")), "yarn.lock": "# yarn lockfile v1\n"},
    "sveltekit-node": {"package.json": package(**needs("@sveltejs/kit", "@sveltejs/adapter-node")), **NPM},
    "astro-node": {"package.json": package("astro build", **needs("astro", "@astrojs/node")), **NPM},
    "go": {"go.mod": "module x\n", "go.sum": "", "cmd/x/main.go": "package main\n", "x.go": "package x\n"},
    "rust": {"Cargo.toml": '[package]\nname = "x"\n', "Cargo.lock": "", "src/main.rs": "fn main() {}"},
    "no-build": {
        "headway.toml": '[build]\ncommand = ""\n[run]\nhealth_check_path = "/up"',
        "package.json": package("webpack", "node server.js", **needs("express")),
        **NPM,
    },
    "own-install": {
        "headway.toml": '[build]\ninstall = "make libraries"\n[run]\ncommand = "./x"\nenv = {PYTHONUNBUFFERED = "0"}',
        "requirements.txt": "flask\n",
    },
}
