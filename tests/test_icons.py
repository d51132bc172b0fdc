"""The icons data set: its table of drawings, and that a seed renders the same bytes."""

import subprocess
import sys
from pathlib import Path

import drawings as drawn
import icons
import numpy as np
import pytest
import yaml
from contact_sheet import contact_sheet

from cliperase.errors import CliperaseError

ROOT = Path(__file__).parent.parent

TABLE = yaml.safe_load((ROOT / "data_prep" / "icons.yaml").read_text())


def test_at_least_72_classes_each_by_three_independent_families():
    assert len(TABLE["classes"]) >= 72
    for name, drawings in TABLE["classes"].items():
        training = set(drawings) & set(TABLE["training_families"])
        assert len(training) >= 3, name
        assert set(drawings) <= {*TABLE["training_families"], *TABLE["heldout_families"]}, name


def test_both_senses_of_apple_are_there():
    assert {"apple", "Apple logo"} <= set(TABLE["classes"])


def test_every_drawing_exists_and_has_ink():
    for name, drawings in TABLE["classes"].items():
        for family, names in drawings.items():
            for glyph_name in names:
                for glyph in drawn.find_glyphs(family, glyph_name):
                    ink = np.asarray(drawn.draw_glyph(*glyph).getchannel("A"))
                    assert (ink > 128).mean() > 0.02, (name, family, glyph_name)


def test_heldout_families_stay_out_of_training():
    small = {**TABLE, "classes": {"key": TABLE["classes"]["key"], "lock": TABLE["classes"]["lock"]}}
    for split, families in (("train", "training_families"), ("heldout", "heldout_families")):
        rows = icons.render_split(small, split, 6, TABLE[families], ["{}"], 32, seed=0)
        assert {source.split(":")[0] for source in rows["source"]} <= set(TABLE[families])


def test_rendering_is_repeatable_and_splits_differ():
    small = {**TABLE, "classes": {"key": TABLE["classes"]["key"], "lock": TABLE["classes"]["lock"]}}

    def pixels(split, seed):
        rows = icons.render_split(small, split, 4, TABLE["training_families"], ["a photo of a {}"], 32, seed)
        return [np.asarray(image).tobytes() for image in rows["image"]]

    assert pixels("train", 0) == pixels("train", 0)
    assert not set(pixels("train", 0)) & set(pixels("test", 0))
    assert not set(pixels("train", 0)) & set(pixels("train", 1))


def test_rows_do_not_depend_on_who_draws_them(monkeypatch):
    small = {**TABLE, "classes": {"key": TABLE["classes"]["key"], "lock": TABLE["classes"]["lock"]}}

    def rows():
        return icons.render_split(small, "train", 35, ["material"], ["{}"], 32, seed=0).to_list()

    assert drawn.AT_ONCE < 70
    by_several = rows()
    monkeypatch.setattr(drawn, "AT_ONCE", 70)
    assert rows() == by_several


def test_a_wrong_name_is_named():
    with pytest.raises(CliperaseError, match="no drawing named 'no-such-thing'"):
        drawn.find_glyphs("material", "no-such-thing")


def test_colours_contrast():
    rng = np.random.default_rng(0)
    for _ in range(50):
        foreground, background = drawn.random_colours(rng)
        assert abs(drawn.luminance(foreground) - drawn.luminance(background)) >= drawn.LEAST_CONTRAST


def test_plain_images_are_dark_on_light_upright_and_repeat():
    small = {**TABLE, "classes": {"key": TABLE["classes"]["key"]}}

    def images():
        rows = icons.render_split(small, "train", 6, ["material"], ["{}"], 32, seed=0, plain=True)
        return [np.asarray(image) for image in rows["image"]]

    for image, again in zip(images(), images(), strict=True):
        assert (image == again).all()
        colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        paper, ink = colours[counts.argmax()], colours[drawn.luminance(colours).argmin()]  # without noise: one colour
        assert drawn.luminance(paper) >= drawn.LIGHT
        assert drawn.luminance(ink) <= drawn.DARK
        drawn_on = (image != paper).any(axis=2)
        assert max(drawn_on.any(axis=0).sum(), drawn_on.any(axis=1).sum()) >= 0.7 * 32  # large


def test_an_unknown_style_is_refused():
    assert icons.one_of({}, "style", ("varied", "plain")) == "varied"
    with pytest.raises(CliperaseError, match="style is 'calm'; choose varied or plain"):
        icons.one_of({"style": "calm"}, "style", ("varied", "plain"))


def test_contact_sheet_shows_every_class(training):
    sheet = np.asarray(contact_sheet(training, per_class=2)).tobytes()
    for label in range(len(training.class_names)):
        first = training.images[(training.labels == label).nonzero()[0, 0]].permute(1, 2, 0).numpy()
        assert first[7].tobytes() in sheet, label  # one row of pixels, whole


BAD_CALLS = {
    "a set that is not there": (["icons.py", "--set", "nothing", "--output", "out"], "no data set 'nothing'"),
    "no parameters": (["icon_pairs.py", "--set", "icon_pairs", "--params", "no.yaml", "--output", "out"], "no.yaml"),
    "an output under a file": (["icon_scenes.py", "--set", "icon_scenes", "--output", "file/out"], "cannot be written"),
    "no data for a sheet": (["contact_sheet.py", "--data", "nowhere", "--output", "sheet.png"], "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_script_that_cannot_run_says_why_in_one_line(case, tmp_path):
    (script, *arguments), said = BAD_CALLS[case]
    (tmp_path / "file").write_text("not a folder")
    command = [sys.executable, ROOT / "data_prep" / script, *arguments]
    (tmp_path / "paper").symlink_to(ROOT / "paper")  # with the profile
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
