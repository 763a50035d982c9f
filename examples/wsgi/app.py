"""One page, and how often it was asked for since this instance started."""

import itertools

COUNT = itertools.count(1)


def application(environ, start_response):
    page = f"<!doctype html><title>WSGI</title><h1>Hello</h1><p>Request {next(COUNT)} for {environ['PATH_INFO']}\n"
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [page.encode()]
