"""``lockkit store``: make a store usable that was moved or restored."""

from __future__ import annotations

from lockkit.cli import output
from lockkit.cli.base import Group, Session
from lockkit.cli.base import command as make

__all__ = ["command"]

command = Group(
    "store",
    help="""Make an embedded store usable that was moved or restored.

    A server's store needs none of this. See: lockkit docs sqlite
    """,
    examples="""
lockkit store adopt-folder --url sqlite:/srv/locks/locks.db
""",
)


@make(
    "adopt-folder",
    group=command,
    short="Use the store in the folder in which it is now.",
    examples="""
lockkit store adopt-folder --url sqlite:/srv/locks/locks.db
""",
)
def adopt_folder(session: Session) -> None:
    """Use the store in the folder in which it is now, under its present name.

    The database of an embedded store records which lock file is its own, and is refused beside another one:
    under a second name (a hard link, a single file that is mounted into a container) it would grant a lock
    twice. Run this command after a database was moved or restored without its lock file. First end all
    programs that use the database under another name: the command refuses as long as it finds one.
    """
    from lockkit.plugins import PluginManager
    from lockkit.shared.opening import for_the_user
    from lockkit.store.spi import OpenOptions

    config = session.config()
    options = OpenOptions(namespace=config.namespace, state_dir=str(config.state_place().path))
    with for_the_user():
        database = PluginManager(disabled=config.disable_plugins).adopt(config.url, options)
    if session.json:
        from lockkit.cli import documents

        with session.client() as client:
            output.print_json(documents.StoreAdoptFolder, store=client, database=database)
        return
    output.say(f"{database} can be used now")
