"""Which messages the command line prints."""

import logging

from spinlock.commands.command_line import main


def test_only_messages_of_this_package_are_handled(monkeypatch, capsys):
    """Lightning has handlers of its own, so one of the root logger repeats its messages."""
    root, own = logging.getLogger(), logging.getLogger("spinlock")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(own, "handlers", [])
    main([])
    main([])
    logging.getLogger("spinlock.generation").info("shown once")
    logging.getLogger("lightning.fabric").info("not shown")
    assert capsys.readouterr().err == "shown once\n"
    assert not root.handlers
