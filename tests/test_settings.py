"""Settings: what is wrong with one is said in one line, and YAML numbers are numbers."""

from typing import Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from cliperase.errors import CliperaseError
from cliperase.settings import Settings, TrainSettings, checked, parse_yaml, read_params, section


class Place(Settings):
    row: int = Field(ge=0, lt=8)


class Everything(Settings):
    """One setting for each kind of check."""

    count: int = Field(default=1, ge=1, le=100)
    rate: float = Field(default=0.1, gt=0)
    switch: bool = False
    name: str = Field(default="a", min_length=1)
    code: str = Field(default="a", pattern="^[a-z]{1,3}$")
    option: Literal["first", "random"] = "first"
    numbers: list[int] = Field(default=[1], min_length=1)
    places: dict[str, Place] = Field(default={})
    place: Place = Place(row=0)
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def in_order(self):
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high; lower it")
        return self


WRONG = {
    "count: text": ({"count": "3"}, "count is '3'; give a whole number"),
    "count: a fraction": ({"count": 1.5}, "count is 1.5; give a whole number"),
    "count: a float without one": ({"count": 2.0}, "count is 2.0; give a whole number"),
    "count: a truth value": ({"count": True}, "count is True; give a whole number"),
    "count: nothing": ({"count": None}, "count is None; give a whole number"),
    "count: too low": ({"count": 0}, "count is 0; give at least 1"),
    "count: too high": ({"count": 101}, "count is 101; give at most 100"),
    "rate: text": ({"rate": "1e-5"}, "rate is '1e-5'; give a number"),
    "rate: a truth value": ({"rate": True}, "rate is True; give a number"),
    "rate: not above its bound": ({"rate": 0}, "rate is 0; give a number above 0.0"),
    "rate: not a number": ({"rate": float("nan")}, "rate is nan; give a finite number"),
    "rate: infinite": ({"rate": float("inf")}, "rate is inf; give a finite number"),
    "switch": ({"switch": 1}, "switch is 1; give true or false"),
    "name: a number": ({"name": 3}, "name is 3; give text, in quotes where it looks like a number"),
    "name: empty": ({"name": ""}, "name is ''; give some text"),
    "code: a kind without a remedy of ours": ({"code": "A"}, "code is 'A'; String should match pattern '^[a-z]{1,3}$'"),
    "option": ({"option": "all"}, "option is 'all'; choose one of 'first' or 'random'"),
    "numbers: no list": ({"numbers": 3}, "numbers is 3; give a list"),
    "numbers: empty": ({"numbers": []}, "numbers is []; give at least 1"),
    "numbers: one of them": ({"numbers": [1, "2"]}, "numbers.1 is '2'; give a whole number"),
    "places: no mapping": ({"places": [1]}, "places is [1]; give a mapping"),
    "place: no mapping": ({"place": 3}, "place is 3; give a mapping"),
    "a nested name": ({"place": {"row": 8}}, "place.row is 8; give a number below 8"),
    "a name nested twice": ({"places": {"first": {"row": -1}}}, "places.first.row is -1; give at least 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_one_line_with_name_value_and_remedy(case):
    values, message = WRONG[case]
    with pytest.raises(CliperaseError) as caught:
        checked(Everything, values, "trying")
    assert str(caught.value) == f"trying: {message}"


def test_names_that_are_unknown_or_missing():
    for values, message in (
        ({"lambda": 1.0}, f"trying has no setting 'lambda'; it has {', '.join(Everything.model_fields)}"),
        ({3: 1.0}, "trying has no setting '3'; it has "),
        ({"place": {"row": 1, "line": 2}}, "trying has no setting 'place.line'; take it out"),
        ({"place": {}}, "trying needs a setting 'place.row'; add it"),
        ({"places": {"last": {}}}, "trying needs a setting 'places.last.row'; add it"),
        ({"low": 2.0}, "trying: low is 2.0, above high; lower it"),
    ):
        with pytest.raises(CliperaseError) as caught:
            checked(Everything, values, "trying")
        assert str(caught.value).startswith(message)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(CliperaseError, match="trying has no setting 'a'; it has none"):
        checked(Settings, {"a": 1}, "trying")
    with pytest.raises(CliperaseError, match="trying needs a setting 'row'; add it"):
        checked(Place, {}, "trying")


@pytest.mark.parametrize("values", [[1], "steps", None, 3])
def test_settings_are_a_mapping(values):
    with pytest.raises(CliperaseError, match=r"^trying: the settings are .*; give a mapping$"):
        checked(Everything, values, "trying")


def test_settings_are_frozen_and_a_whole_number_is_a_number():
    made = checked(Everything, {"rate": 2}, "trying")
    assert made == Everything(rate=2.0)
    assert type(made.rate) is float
    with pytest.raises(ValidationError, match="frozen"):
        made.rate = 3.0


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@example("places", {"\x85": None})  # a line's end to Python
@given(st.sampled_from([*Everything.model_fields, "other"]), JUNK)
def test_any_value_is_taken_or_refused_in_one_line(name, value):
    made, refusal = outcome(checked, Everything, {name: value}, "trying")
    if refusal:
        assert len(refusal.splitlines()) == 1
        assert refusal.startswith("trying")
    else:
        assert isinstance(value, bool) == isinstance(getattr(made, name), bool)


def outcome(function, *arguments):
    """(what it returns, None) or (None, the message of its `CliperaseError`)."""
    try:
        return function(*arguments), None
    except CliperaseError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", "1e-5"),
        ("steps", 0),
        ("learning_rate", -1.0),
        ("schedule", "cosine"),
        ("captions", "all"),
        ("steps", 1.5),
        ("forget_batch", 0),
        ("evaluate_every", True),
        ("learning_rate", float("nan")),
        ("micro_batch", -1),
        ("autocast", 1),
        ("broken_percent", -1.0),
        ("lanes", 0),
        ("seed", -1),
        ("weight_decay", float("inf")),
    ],
)
def test_bad_settings_of_the_loop_are_named(field, value):
    with pytest.raises(CliperaseError, match=f"^training: {field} is .*; (give|choose one of) "):
        checked(TrainSettings, {"steps": 1, "learning_rate": 1e-4, field: value}, "training")


VALUES = {
    "1e-5": 1e-5, "1.0e-5": 1e-5, "1E5": 1e5, ".5": 0.5, "5.": 5.0, "-2": -2, "010": 10, "0o10": 8, "1:30": "1:30",
    "yes": "yes", "on": "on", "true": True, "null": None, "": None, "text": "text", "'1'": "1", "[1, 1e-3]": [1, 1e-3],
    "{classes: [apple, 3]}": {"classes": ["apple", 3]},
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_yaml_values(text):
    value = parse_yaml(text, "--set x")
    assert value == VALUES[text]
    assert type(value) is type(VALUES[text])


@pytest.mark.parametrize(
    "text",
    ["{classes: [apple", "'", "a: 1\na: 2", "--- 1\n--- 2", "*gone", "!!python/name:os.system", "!foo 1", "2020-13-45",
     "!!bool maybe", "!!int many", "!!float", "\x00", "[" * 5000, "9" * 5000],
)  # fmt: skip
def test_what_is_not_yaml_is_one_line(text):
    with pytest.raises(CliperaseError, match=r"^--set x is not YAML \(.*\); check its brackets and quotes$"):
        parse_yaml(text, "--set x")


@given(st.text(alphabet="ab1e-.:,'\"[]{}&*!?|>%@`#~<=\n\t \\", max_size=12))
def test_any_text_is_yaml_or_refused(text):
    _, refusal = outcome(parse_yaml, text, "it")
    assert refusal is None or len(refusal.splitlines()) == 1


NUMBERS = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text("abcé '\"-:#\n")


@given(st.lists(NUMBERS, max_size=5))
def test_what_yaml_1_1_writes_is_read_as_it_was(values):
    """The tables of the search are written by PyYAML."""
    assert parse_yaml(yaml.safe_dump(values), "it") == values


def test_parameters_are_a_mapping_in_a_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("unlearn: {learning_rate: 1e-5}\nseeds: [010]\nempty:\n")
    params = read_params(path)
    assert params == {"unlearn": {"learning_rate": 1e-5}, "seeds": [10], "empty": None}
    assert section(params, "unlearn") == {"learning_rate": 1e-5}
    with pytest.raises(CliperaseError, match=r"no section 'unlearn\.more' \('more' is missing\); add it"):
        section(params, "unlearn.more")
    with pytest.raises(CliperaseError, match="section 'empty' of the parameters is None, not a mapping"):
        section(params, "empty")
    path.write_text("- 1")
    with pytest.raises(CliperaseError, match="hold list, not a mapping"):
        read_params(path)
    path.write_text("a: [")
    with pytest.raises(CliperaseError, match="is not YAML"):
        read_params(path)
    with pytest.raises(CliperaseError, match=r"cannot be read \(No such file or directory\); give a YAML file"):
        read_params(tmp_path / "none.yaml")
