"""A page as one HTML file that needs nothing: no script, no request, one style, whose hash is all that may run."""

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nlptrain.report.blocks import Page
from nlptrain.report.safe_text import visible

_STYLE = "page.css"


def html(page: Page) -> str:
    """The whole document."""
    environment = _environment()
    loader: Any = environment.loader
    # a document's line ends are those of its style, and its hash is over these
    style = loader.get_source(environment, _STYLE)[0].replace("\r\n", "\n")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html").render(page=page, style=Markup(style), digest=digest)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nlptrain.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # whatever a template prints: text from data is in every other place
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    environment.tests["instance"] = lambda value, name: type(value).__name__ == name
    environment.globals["lines"] = lambda text: text.splitlines()
    return environment
