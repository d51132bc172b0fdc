"""Prompt templates: how the name of a class becomes the texts that a model is asked with."""

from collections.abc import Callable, Iterable
from pathlib import Path

from cliperase.errors import CliperaseError, reason_of

PROMPT = "a photo of a {}"
USUAL = (PROMPT,)  # where none are given
NAMED = ("simple", "openai")  # in open_clip: the 7 and the 80 templates of CLIP's authors for ImageNet
Templates = str | Path | Iterable[str | Callable[[str], str]]


def read_templates(source: Templates | None) -> tuple[str, ...]:
    """The templates of a `source`: a name in `NAMED`, a file with one a line, or a list of them; None is the usual one.

    Each has one place for the class, `{}`, or `{c}` as in CLIP_benchmark, or is a function of it as in open_clip.
    """
    if source is None:
        return USUAL
    if source in NAMED:
        import open_clip  # it takes seconds

        source = getattr(open_clip, f"{source.upper()}_IMAGENET_TEMPLATES")
    given = lines_of(Path(source)) if isinstance(source, str | Path) else source
    lines = [one("{}") if callable(one) else one for one in given]
    templates = tuple(line.strip().replace("{c}", "{}") for line in lines if line.strip())
    if not templates:
        raise CliperaseError(f"templates {source}: there is none; write one a line, such as 'a photo of a {{}}'")
    for template in templates:
        if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
            raise CliperaseError(f"template {template!r} must have one place for the class; write 'a photo of a {{}}'")
    return templates


def unusual(templates: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A list of them, empty for the usual one, which no result and no hash names."""
    return [] if templates == USUAL else [templates]


def said_of(templates: tuple[str, ...]) -> dict[str, list[str]]:
    """What a result says of them."""
    return {"templates": list(templates)} if unusual(templates) else {}


def lines_of(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = " or ".join(NAMED)
        raise CliperaseError(
            f"templates {path} cannot be read ({reason_of(error)}); name a file with one a line, or {known}"
        ) from None
