"""The two sites of the benchmark ``landing-server``, run as ``serve_pages.py record|bare`` with ``PORT`` and more in
the environment, by the same server with the same options: those of ``shared-record serve``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from flask import Flask, render_template_string
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

from shared_record.app import create_app
from shared_record.settings import Settings

BARE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ vendor }} usage record</title></head><body>
<h1>{{ vendor }}</h1><p>{{ total }} <span>{{ unit }}</span></p>
<table><thead><tr><th>Recorded</th><th>State</th><th>Amount</th></tr></thead><tbody>
{% for row in rows %}<tr><td>{{ row.recorded }}</td><td>{{ row.state }}</td><td>{{ row.amount }}</td></tr>
{% endfor %}</tbody></table>
<p>FILLING</p></body></html>
"""
ROWS = [{"recorded": f"{day} Nov 2026, 09:00 UTC", "state": "verified", "amount": f"{day}.25"} for day in range(20, 25)]


def record() -> Any:
    """Return this program over the data directory ``DATA``."""
    folder = Path(os.environ["DATA"])
    settings = Settings(data_dir=folder, port=int(os.environ["PORT"]))
    return create_app(settings)


def bare() -> Flask:
    """Return a Flask application with one autoescaped page of ``BYTES`` bytes and no database."""
    app = Flask("bare")
    values = {"vendor": "Acme", "total": "1,234.5", "unit": "API credits", "rows": ROWS}
    with app.app_context():
        missing = int(os.environ["BYTES"]) - len(render_template_string(BARE, **values)) + len("FILLING")
    template = app.jinja_env.from_string(BARE.replace("FILLING", "." * missing))

    @app.get("/")
    def page() -> str:
        return template.render(**values)

    return app


def main() -> None:
    """Serve the site named by the first argument."""
    threads = Settings().web_threads
    Server(
        f"serve_pages:{sys.argv[1]}",
        factory=True,
        address="127.0.0.1",
        port=int(os.environ["PORT"]),
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=threads,
        backpressure=threads * 8,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        websockets=False,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
