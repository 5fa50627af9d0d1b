"""What somebody does in the app in one session, as events."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from deploy.local.demo.events import Recorder
from deploy.local.demo.fleet import Content, Person

_SEARCHES = ("fractions", "states of matter", "map scale", "class 7 maths", "lion", "equations", "ice floats")
_ERRORS = (
    ("CONTENT_LOAD_FAILED", "CONTENT", "java.io.IOException: unexpected end of stream\n  at ContentReader.open:118"),
    ("SYNC_TIMEOUT", "NETWORK", "java.net.SocketTimeoutException: timeout\n  at SyncWorker.run:61"),
    ("DB_LOCKED", "SYSTEM", "android.database.sqlite.SQLiteDatabaseLockedException\n  at EventStore.insert:204"),
)


class Session:
    """One session of a person on a device. ``moment_ms`` moves on as things happen (true time)."""

    def __init__(self, random: Random, recorder: Recorder, person: Person, moment_ms: int) -> None:
        self._random = random
        self._recorder = recorder
        self._person = person
        self._id = recorder.new_session()
        self.moment_ms = moment_ms

    def learn(self, contents: Sequence[Content], spec: dict[str, Any]) -> None:
        """A student opens the app, studies ``contents`` one after the other and closes it."""
        began_ms = self.moment_ms
        self._event("START", {"type": "app", "dspec": spec, "mode": "play"}, wait_s=0)
        self._event("LOG", {"type": "api_call", "level": "INFO", "message": "content list refreshed"})
        self._page("home")
        for content in contents:
            self._find(content)
            self._study(content)
            if self._random.random() < 0.06:
                self._fail(content)
        self._event("END", {"type": "app", "mode": "play", "duration": (self.moment_ms - began_ms) // 1000}, wait_s=2)

    def teach(self, contents: Sequence[Content]) -> None:
        """A teacher looks at how the class is doing in the portal, and changes what it will learn next."""
        began_ms = self.moment_ms
        agent: dict[str, Any] = {"agent": "Firefox", "ver": "128.0", "system": "Linux", "platform": "Linux x86_64"}
        self._event("START", {"type": "session", "uaspec": agent}, wait_s=0, env="portal")
        self._page("class-dashboard", env="portal")
        for content in contents:
            self._event(
                "INTERACT",
                {"type": "CLICK", "id": "assign-content", "pageid": "class-dashboard"},
                content,
                env="portal",
                wait_s=40,
            )
            change = {"type": "assignment", "props": ["assigned", "due"], "state": "Assigned", "prevstate": "Draft"}
            self._event("AUDIT", change, content, env="portal")
            self._event(
                "LOG",
                {"type": "api_access", "level": "INFO", "message": "PATCH /assignments", "params": [{"status": 200}]},
                env="portal",
            )
        seconds = (self.moment_ms - began_ms) // 1000
        closed = {"type": "session", "pageid": "class-dashboard", "duration": seconds}
        self._event("END", closed, env="portal", wait_s=30)

    def _event(
        self, eid: str, edata: dict[str, Any], content: Content | None = None, *, wait_s: float = 4, env: str = "home"
    ) -> None:
        self.moment_ms += int(self._random.uniform(0.4, 1.8) * wait_s * 1000)
        self._recorder.record(self.moment_ms, self._person, self._id, eid, edata, content, env)

    def _page(self, page: str, env: str = "home") -> None:
        self._event("IMPRESSION", {"type": "view", "pageid": page, "uri": f"/{page}"}, env=env)

    def _find(self, content: Content) -> None:
        if self._random.random() < 0.35:
            found = [{"identifier": content.id, "name": content.name}]
            edata = {
                "type": "content",
                "query": self._random.choice(_SEARCHES),
                "size": self._random.randint(1, 40),
                "topn": found,
                "filters": {"subject": content.subject},
            }
            self._event("SEARCH", edata, wait_s=8)
        touch = {"type": "TOUCH", "subtype": "content-clicked", "id": "content-card", "pageid": "library"}
        self._event("INTERACT", touch, content)

    def _study(self, content: Content) -> None:
        began_ms = self.moment_ms
        self._event("START", {"type": "player", "mode": "play", "pageid": "player"}, content, wait_s=2, env="player")
        for number in range(1, content.pages + 1):
            page = f"page-{number}"
            turned = {"type": "workflow", "subtype": "paginate", "pageid": page, "uri": f"/player/{number}"}
            self._event("IMPRESSION", turned, content, wait_s=18, env="player")
            touch = {"type": "TOUCH", "subtype": "next", "id": "next-button", "pageid": page}
            self._event("INTERACT", touch, content, env="player")
            if self._random.random() < 0.04:
                self._event("INTERRUPT", {"type": "background", "pageid": page}, content, env="player")
                self._event("INTERRUPT", {"type": "resume", "pageid": page}, content, wait_s=90, env="player")
        self._answer(content)
        left = {"type": "player", "mode": "play", "pageid": "player", "duration": (self.moment_ms - began_ms) // 1000}
        self._event("END", left, content, wait_s=0.5, env="player")
        if self._random.random() < 0.15:
            rated = {"rating": self._random.choice((2, 3, 4, 4, 5, 5, 5)), "comments": "", "commentid": "rating"}
            self._event("FEEDBACK", rated, content)
        if self._random.random() < 0.04:
            item = {"id": content.id, "type": "Content", "ver": content.version}
            self._event("SHARE", {"dir": "out", "type": "file", "items": [item]}, content)

    def _answer(self, content: Content) -> None:
        for index, question in enumerate(content.questions):
            right = self._random.random() < min(0.98, max(0.05, question.ease + self._person.skill))
            seconds = round(self._random.uniform(6, 45), 1)
            target = {"id": question.id, "ver": "1.0", "type": "AssessmentItem"}
            choice = "right" if right else self._random.choice(("a", "b", "c"))
            edata: dict[str, Any] = {"target": target, "type": "CHOOSE", "values": [{"option": choice}]}
            self._event("RESPONSE", edata, content, wait_s=seconds, env="player")
            edata = {
                "item": {"id": question.id, "title": question.title, "maxscore": 1, "type": "mcq"},
                "index": index + 1,
                "pass": "Yes" if right else "No",
                "score": int(right),
                "resvalues": [{"option": choice}],
                "duration": seconds,
            }
            self._event("ASSESS", edata, content, wait_s=1, env="player")

    def _fail(self, content: Content) -> None:
        code, kind, trace = self._random.choice(_ERRORS)
        thing = {"id": content.id, "type": "Content", "ver": content.version}
        edata = {"err": code, "errtype": kind, "stacktrace": trace, "pageid": "player", "object": thing}
        self._event("ERROR", edata, content)
