"""The fleet: two schools, their people, devices and content. The same for every run of one seed."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from deploy.local.demo.clocks import Clock

MIN_STUDENTS = 12
"""Fewer would leave out one of the stories."""

Story = Literal["daily", "offline", "shared file", "wrong clock", "web"]


@dataclass(frozen=True, slots=True)
class School:
    """A school, which is a channel."""

    channel: str
    name: str
    state: str
    districts: tuple[str, ...]


SCHOOLS = (
    School("hillview", "Hillview High School", "Karnataka", ("Mysuru", "Mandya")),
    School("lakeside", "Lakeside Public School", "Karnataka", ("Tumakuru", "Hassan")),
)


@dataclass(frozen=True, slots=True)
class Person:
    """A student or a teacher."""

    id: str
    role: Literal["student", "teacher"]
    school: School
    district: str
    grade: str
    skill: float
    """Added to the chance of a right answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """An item of a practice set."""

    id: str
    title: str
    ease: float
    """Chance that an average student answers it right."""


@dataclass(frozen=True, slots=True)
class Content:
    """Something to learn with."""

    id: str
    name: str
    subject: str
    kind: Literal["Resource", "PracticeQuestionSet"]
    version: str
    book: str
    pages: int
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A phone, tablet or browser, with its users and habits."""

    id: str
    kind: Literal["phone", "tablet", "web"]
    users: tuple[Person, ...]
    spec: dict[str, Any]
    app_version: str
    story: Story = "daily"
    clock: Clock = field(default_factory=Clock)
    days_offline: int = 0
    is_known: bool = True
    """Whether ``dimensions`` has it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All there is."""

    people: tuple[Person, ...]
    devices: tuple[Device, ...]
    contents: tuple[Content, ...]
    administrator: Device
    """Whose phone syncs the shared file."""


_SHELF: tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...] = (
    ("Fractions on a number line", "Mathematics", ()),
    (
        "Practice: fractions",
        "Mathematics",
        (
            ("Which is larger, 3/4 or 2/3?", 0.74),
            ("1/2 + 1/3", 0.52),
            ("How many eighths are in 1 1/4?", 0.33),
            ("0.25 as a fraction", 0.81),
            ("A third of three quarters", 0.41),
        ),
    ),
    ("Water and its states", "Science", ()),
    (
        "Practice: states of matter",
        "Science",
        (
            ("At which temperature does water boil at sea level?", 0.88),
            ("Why does ice float?", 0.47),
            ("What is sublimation?", 0.58),
            ("Which state keeps its volume but not its shape?", 0.69),
        ),
    ),
    ("Reading a map", "Social Science", ()),
    (
        "Practice: maps and scales",
        "Social Science",
        (
            ("How far is 3 cm at 1:50,000?", 0.38),
            ("Which way is up on most maps?", 0.93),
            ("What does a contour line join?", 0.55),
        ),
    ),
    ("The lion and the mouse", "English", ()),
    ("Solving for x", "Mathematics", ()),
)
_PHONES = (
    ("Android 9", "Redmi Note 7", 3.0, 32.0),
    ("Android 10", "Samsung Galaxy M01", 2.0, 32.0),
    ("Android 8.1", "Nokia 3.1", 2.0, 16.0),
    ("Android 11", "Realme C11", 2.0, 32.0),
)
_TABLET = ("Android 8.1", "Lenovo Tab E7", 1.0, 16.0)


def make_fleet(seed: int, students: int) -> Fleet:
    """Return the fleet of a seed: ``students`` students (at least :data:`MIN_STUDENTS`), 3 teachers."""
    if students < MIN_STUDENTS:
        raise ValueError(f"the demo's fleet has at least {MIN_STUDENTS} students")
    random = Random(f"fleet {seed}")  # noqa: S311 - a play, no secret
    contents = _contents(random)
    pupils = tuple(_person(random, "student", number) for number in range(students))
    teachers = tuple(_person(random, "teacher", number) for number in range(3))
    # A third of the students share the schools' tablets, three to one; every other has a phone.
    sharing = students // 3
    owners, sharers = pupils[:-sharing], pupils[-sharing:]
    stories = _stories()
    as_usual: tuple[Story, Clock, int] = ("daily", Clock(), 0)
    devices = [_phone(random, owner, *stories.get(number, as_usual)) for number, owner in enumerate(owners)]
    for channel in (school.channel for school in SCHOOLS):
        group = [person for person in sharers if person.school.channel == channel]
        devices += [
            Device(_device_id(random), "tablet", tuple(group[at : at + 3]), _spec(*_TABLET), "3.3.128", is_known=at > 0)
            for at in range(0, len(group), 3)
        ]
    devices += [
        Device(_device_id(random), "web", (teacher,), _spec("Linux x86_64", "Firefox 128", -1, -1), "4.8.2", "web")
        for teacher in teachers
    ]
    administrator = _phone(random, teachers[0], "daily", Clock(), 0)
    return Fleet((*pupils, *teachers), tuple(devices), contents, administrator)


def _stories() -> dict[int, tuple[Story, Clock, int]]:
    """What happens to the phones that are not as they should be, by number."""
    return {
        0: ("shared file", Clock(), 4),
        1: ("offline", Clock(), 3),
        2: ("offline", Clock(), 6),
        3: ("wrong clock", Clock("ahead"), 0),
        4: ("wrong clock", Clock("since 1970"), 0),
        5: ("wrong clock", Clock("seconds"), 0),
        6: ("wrong clock", Clock("microseconds"), 0),
        7: ("offline", Clock(), 9),
    }


def _person(random: Random, role: Literal["student", "teacher"], number: int) -> Person:
    school = SCHOOLS[number % len(SCHOOLS)]
    return Person(
        str(uuid.UUID(int=random.getrandbits(128), version=4)),
        role,
        school,
        random.choice(school.districts),
        random.choice(("Class 6", "Class 7", "Class 8")),
        random.gauss(0, 0.15),
    )


def _phone(random: Random, owner: Person, story: Story, clock: Clock, days_offline: int) -> Device:
    return Device(
        _device_id(random),
        "phone",
        (owner,),
        _spec(*random.choice(_PHONES)),
        random.choice(("3.3.128", "3.2.96")),
        story,
        clock,
        days_offline,
    )


def _device_id(random: Random) -> str:
    return hashlib.sha1(random.randbytes(16), usedforsecurity=False).hexdigest()


def _spec(os: str, make: str, memory_gb: float, disk_gb: float) -> dict[str, Any]:
    return {"os": os, "make": make, "mem": memory_gb, "idisk": disk_gb, "edisk": -1, "scrn": 5.5, "sims": 1, "cap": []}


def _contents(random: Random) -> tuple[Content, ...]:
    books: dict[str, str] = {}
    made = []
    for name, subject, questions in _SHELF:
        book = books.setdefault(subject, _content_id(random))
        items = tuple(Question(f"{_content_id(random)}", title, ease) for title, ease in questions)
        kind: Literal["Resource", "PracticeQuestionSet"] = "PracticeQuestionSet" if items else "Resource"
        made.append(Content(_content_id(random), name, subject, kind, "1.0", book, random.randint(3, 7), items))
    return tuple(made)


def _content_id(random: Random) -> str:
    return f"do_{random.randrange(31 * 10**19, 32 * 10**19)}"


def dimension_rows(fleet: Fleet) -> dict[str, list[dict[str, Any]]]:
    """Return the rows ``{"id", "attributes"}`` of the fleet by dimension type.

    The first tablet of each school and one content are left out: their events pass and are flagged ``missing``.
    """
    users = [
        {
            "id": person.id,
            "attributes": {
                "type": person.role,
                "school": person.school.name,
                "state": person.school.state,
                "district": person.district,
                "grade": person.grade if person.role == "student" else "",
                "board": "State (Karnataka)",
            },
        }
        for person in fleet.people
    ]
    devices = [
        {
            "id": device.id,
            "attributes": {
                "kind": device.kind,
                "os": device.spec["os"],
                "make": device.spec["make"],
                "ipLocation": {"state": device.users[0].school.state, "district": device.users[0].school.districts[0]},
            },
        }
        for device in (*fleet.devices, fleet.administrator)
        if device.is_known
    ]
    contents = [
        {
            "id": content.id,
            "attributes": {"name": content.name, "subject": content.subject, "contentType": content.kind},
        }
        for content in fleet.contents[:-1]
    ]
    return {"user": users, "device": devices, "content": contents}
