"""Files and folders of other kinds that are in the place of an output."""

import os
import shutil

from spinlock.runtime.output_files import PNG


def text(folder):
    (folder / "out").write_text("precious")


def table(folder):
    (folder / "out").write_text("a,b\n1,2\n")


def empty(folder):
    (folder / "out").touch()


def cut_picture(folder):
    (folder / "out").write_bytes(PNG.start[:-1])


def other_page(folder):
    (folder / "out").write_text('<!DOCTYPE html>\n<html lang="en"><head><title>mine</title>')


def other_dataset(folder):
    shutil.copy(folder / "data.h5", folder / "out")


def directory(folder):
    (folder / "out").mkdir()
    (folder / "out" / "inside").write_text("precious")


def pipe(folder):
    os.mkfifo(folder / "out")


def dangling_link(folder):
    (folder / "out").symlink_to("nothing.png")


def loop_of_links(folder):
    (folder / "out").symlink_to("out")


def link_to_text(folder):
    (folder / "precious.txt").write_text("precious")
    (folder / "out").symlink_to("precious.txt")


NOT_REGULAR = {
    directory: "is a directory",
    pipe: "is not a regular file",
    dangling_link: "is a symbolic link to nothing",
    loop_of_links: "is a symbolic link to nothing",
}
OF_NO_KIND = [text, table, empty, cut_picture, other_page, other_dataset, link_to_text]
