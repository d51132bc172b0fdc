"""Save a model of the hub as a folder, so that every profile starts from one."""

from paper.commands import add_options

CAPTIONER = "captioner"  # the one of `hub` that is no image-text model


def add_arguments(parser):
    parser.add_argument("name", help="one of `hub` in the profile")
    add_options(parser, "profile", "output")


def run(arguments):
    from cliperase.errors import CliperaseError
    from cliperase.files import check_writable
    from paper.params import read_profile

    hub = read_profile(arguments.profile).hub
    if arguments.name not in hub:
        raise CliperaseError(
            f"profile {arguments.profile} fetches no model {arguments.name!r}; it fetches {', '.join(hub) or 'none'}"
        )
    check_writable(arguments.output / "config.json")
    if arguments.name == CAPTIONER:
        from paper.hybrid_blip import load_captioner as load
    else:
        from cliperase.models import load_model as load
    load(hub[arguments.name]).save(arguments.output)
