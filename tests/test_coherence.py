import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.measuring.coherence import off_language, scripts, unreadable

PROSE = (
    "Mix the flour, the water and the yeast in a large bowl, knead it for ten minutes, let it rest "
    "until it has doubled in size, then shape the loaf and bake it until the crust is dark. "
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("...!!?", "empty"),
        ("the oven " * 7, "looping"),
        ("the oven the lid the oven the pan " * 6, "looping"),
        (
            " ".join(f"Note {n}: this is page {n} of {n + 1}." for n in range(60)) + " and on" * 90,
            "looping",
        ),
        ("啊" * 60, "looping"),
        ("a" * 80, "looping"),
        ("xkqj wvrt zzpl qqrs bnmk trlp", "garbled"),
        ("%$#@ &*()! ^^%$ #@!~ {}[] ;;:: x", "garbled"),
        ("\ufffd" * 10 + " some words \ufffd\ufffd", "garbled"),
        ("bread хлеб 面包 خبز brot белый 白色 أبيض loaf тесто 面团 عجين oven печь 烤箱", "garbled"),
    ],
)
def test_what_cannot_be_judged_says_why(text: str, reason: str) -> None:
    said = unreadable(text)
    assert said is not None and said.startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "Yes.",
        PROSE,
        PROSE[:50],
        "def bake(loaf):\n    for crumb in loaf:\n        crumb.heat(210)\n    return loaf\n" * 2,
        "| loaf | price |\n|---|---|\n| rye | 4.20 |\n| wheat | 3.10 |\n| oat | 5.00 |",
        "\n".join(f"{n}. Fold the dough {n} times and wait {2 * n} minutes." for n in range(1, 9)),
        "x = 3 + 4 = 7, 7 * 6 = 42, 42 / 2 = 21, so the answer is #### 21",
        "Mische Mehl und Wasser, knete zehn Minuten und backe das Brot, bis es dunkel ist.",
        "先把面粉和水混合，揉十分钟，放在温暖的地方，然后烤到金黄色。",
        "小麦粉と水を混ぜて、十分間こねてから、オーブンで焼きます。",
        "امزج الدقيق والماء واعجن لمدة عشر دقائق ثم اخبز حتى يصبح لونه ذهبيا.",
        "आटा और पानी मिलाएं, दस मिनट तक गूंधें और सुनहरा होने तक सेंकें।",
        "ผสมแป้งกับน้ำ นวดสิบนาที แล้วอบจนเป็นสีทอง",
        "Chorus: sing, sing a song of bread\nsing it in the morning\nChorus: sing, sing a song",
        "https://example.org/bread?x=1 and ftp://example.org/rye are the two addresses.",
    ],
)
def test_short_structured_and_foreign_texts_are_read(text: str) -> None:
    assert unreadable(text) is None


def test_truncation_is_no_fault() -> None:
    assert all(unreadable(PROSE[:n]) is None for n in range(1, len(PROSE)))


@pytest.mark.parametrize(
    ("answer", "request_", "script"),
    [
        ("先把面粉和水混合，揉十分钟，放在温暖的地方，然后烤到金黄色。", "How do I bake?", "cjk"),
        ("Смешайте муку с водой и месите десять минут.", "How do I bake?", "cyrillic"),
        ("Смешайте муку с водой и месите десять минут.", "怎么做面包", "cyrillic"),
    ],
)
def test_another_script_is_off_language(answer: str, request_: str, script: str) -> None:
    said = off_language(answer, request_)
    assert said is not None and said.startswith(f"off-language: {script}")


@pytest.mark.parametrize(
    ("answer", "request_"),
    [
        ("Mix flour and water, then knead it for ten minutes.", "怎么做面包"),
        ("先把面粉和水混合，揉十分钟，放在温暖的地方。", "怎么做面包"),
        ("先把面粉和水混合，揉十分钟，放在温暖的地方。", "Tell me in Chinese how to bake."),
        ("先把面粉和水混合，揉十分钟，放在温暖的地方。", ""),
        ("The word for bread is 面包, and a baker is 面包师; both are common.", "Name two words."),
        ("Хлеб", "What is bread called there?"),
    ],
)
def test_latin_terms_and_asked_languages_are_at_home(answer: str, request_: str) -> None:
    assert off_language(answer, request_) is None


def test_scripts_are_counted_in_letters() -> None:
    assert scripts("a1 б2 面!") == {"latin": 1, "cyrillic": 1, "cjk": 1}
    assert scripts("ab c, 3") == {"latin": 3}


@given(st.text(), st.text(max_size=60))
def test_any_text_is_looked_at(text: str, request_: str) -> None:
    for said in (unreadable(text), off_language(text, request_)):
        assert said is None or said.split(":")[0] in ("empty", "looping", "garbled", "off-language")
