"""The web application: what it tells, what it refuses, and that nothing that is served names an entry."""

import json
import re
from contextlib import contextmanager

import httpx
import pytest
from markupsafe import escape

from ntire import UserError
from ntire.study.app import application
from ntire.study.design import open_study
from ntire.study.keys import Keys
from ntire.study.session import Site
from ntire.study.store import Store
from tests.ntire.study.conftest import ENTRIES
from tests.ntire.study.serving import Program, WithoutNetwork


def edited(folder, *changes):
    text = (folder / "study.toml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "study.toml").write_text(text)
    return folder


QUICK = ("least_seconds = 2.0", "least_seconds = 0.0")


@contextmanager
def site_of(folder):
    site = Site(folder, open_study(folder), Store(folder, open_study(folder)), Keys(folder))
    try:
        yield site
    finally:
        site.store.close()


@pytest.fixture
def site(study):
    with site_of(edited(study("--open"), QUICK)) as found:
        yield found


class Here(Program):
    """A program that reaches the application without a network."""

    def __init__(self, site, root="", at=""):
        super().__init__(at, WithoutNetwork(application(site, root)))


@pytest.fixture
def here(site):
    with Here(site) as found:
        yield found


def test_an_observer_goes_through_all_trials_and_is_done(site, here):
    here.take_part("Ada")
    asked = here.asked()
    assert (asked["position"], asked["total"], asked["undo"]) == (0, 16, False)
    for position in range(16):
        assert asked["position"] == position
        assert all(here.page(f"/picture/{name}").status_code == 200 for name in asked["trial"]["pictures"])
        asked = here.send("/api/vote", here.ballot(asked)).json()
    assert asked["stage"] == "done"
    assert "Thank you" in here.page().text
    (observer,) = site.store.observers()
    assert observer.finished
    assert observer.screen["width"] == 1366
    assert [vote.position for vote in site.store.votes()] == list(range(16))
    assert {vote.role for vote in site.store.votes()} == {"vote", "repeat", "anchor"}


def test_nothing_that_is_served_names_an_entry_or_a_file(site, here):
    here.take_part()
    served = []
    for _ in range(3):
        asked = here.asked()
        served += [here.page(), here.client.get("/api/trial"), here.page("/static/trials.js")]
        served += [here.page(f"/picture/{name}") for name in (*asked["trial"]["pictures"], *asked["trial"]["beside"])]
        here.send("/api/vote", here.ballot(asked))
    told = b"".join(one.content + repr(sorted(one.headers.items())).encode() for one in served)
    names = [
        *ENTRIES,
        *(f"Team {name}" for name in ENTRIES),
        "entry0",
        "region0",
        "anchor",
        *(f"000{n}.png" for n in range(5)),
    ]
    assert [name for name in names if name.encode() in told] == []
    pictures = [one for one in served if one.headers["content-type"] == "image/png"]
    for one in pictures:
        assert {"etag", "last-modified"}.isdisjoint(one.headers)
        assert one.headers["cache-control"] == "no-store"
    assert len({len(one.content) for one in pictures[:3]}) == 1


def test_a_picture_has_another_address_for_each_observer_and_trial_and_is_for_the_trials_near(site, here):
    names = set()
    for who in ("Ada", "Grace"):
        with Here(site) as other:
            asked = other.take_part(who).asked()
            first = asked["trial"]["pictures"]
            assert names.isdisjoint(first)
            names |= {*first, *asked["trial"]["beside"], *asked["next"]["pictures"]}
            for _ in range(3):
                asked = other.send("/api/vote", other.ballot(asked)).json()
            assert other.page(f"/picture/{first[0]}").status_code == 404
    assert all(here.page(f"/picture/{name}").status_code == 401 for name in names)
    here.take_part("Mary")
    assert all(here.page(f"/picture/{name}").status_code == 404 for name in names)


def test_the_last_answer_can_be_taken_back_and_stays_in_the_file(site, here):
    here.take_part()
    first = here.asked()
    here.send("/api/vote", here.ballot(first, (2, 1)))
    again = here.send("/api/undo", {"position": 0})
    assert again.status_code == 200
    assert again.json()["position"] == 0
    assert again.json()["trial"] == first["trial"]
    assert here.send("/api/undo", {"position": 0}).status_code == 409
    here.send("/api/vote", here.ballot(first, (1, 2)))
    assert [vote.answer for vote in site.store.votes()] == [(1, 2)]
    assert site.store._read("SELECT count(*) FROM votes") == [(2,)]


def test_a_vote_that_is_sent_twice_counts_once_and_another_for_the_same_trial_is_refused(site, here):
    here.take_part()
    asked = here.asked()
    ballot = here.ballot(asked)
    assert [here.send("/api/vote", ballot).status_code for _ in range(3)] == [200] * 3
    assert here.send("/api/vote", here.ballot(asked, (2, 1))).status_code == 409
    assert here.send("/api/vote", ballot | {"answers": {"overall": [2, 1]}}).status_code == 409
    assert here.send("/api/vote", here.ballot(asked, position=5)).status_code == 409
    assert len(site.store.votes()) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"answers": {"overall": [1, 3]}}, 422), ({"answers": {"other": [1, 2]}}, 422), ({"answers": {}}, 422),
        ({"answers": {"overall": [1, 2], "more": [1, 2]}}, 422), ({"nonce": "x"}, 422), ({"position": -1}, 422),
        ({"position": 10**6}, 422), ({"seconds": -1}, 422), ({"more": 1}, 422), ({"answers": "x"}, 422),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(site, here, changes, status):
    here.take_part()
    assert here.send("/api/vote", here.ballot(here.asked(), **changes)).status_code == status
    assert site.store.votes() == []


def test_an_answer_before_the_least_viewing_time_is_refused_whatever_the_browser_says(study):
    with site_of(edited(study("--open"), ("least_seconds = 2.0", "least_seconds = 60"))) as site, Here(site) as here:
        here.take_part()
        refused = here.send("/api/vote", here.ballot(here.asked(), seconds=1000))
        assert refused.status_code == 425
        assert site.store.votes() == []


def test_wrong_tokens_and_strangers_get_nowhere(site, here):
    assert here.page("/join/" + "x" * 22).status_code == 404
    assert here.page("/join/" + site.keys.invitation(30)).status_code == 404
    assert here.page("/admin").status_code == 404
    assert here.page("/admin/" + "x" * 22).status_code == 404
    for path in ("/api/trial", "/picture/abc", "/screen"):
        assert here.page(path).status_code == 401
    here.client.cookies.set("ntire-study", "x" * 22)
    assert here.page("/api/trial").status_code == 401
    assert site.store.observers() == []


@pytest.mark.parametrize(
    "path",
    ["/static/../design.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/picture/../../study.toml", "/study.toml",
     "/picture/region0000-entry00.png", "/static/", "//etc/passwd", "/votes.sqlite", "/static/%00", "/join/../secret.key"],
)  # fmt: skip
def test_no_path_leads_to_a_file(here, path):
    here.take_part()
    found = here.client.get(httpx.URL("http://testserver").copy_with(raw_path=path.encode()))
    assert found.status_code in (400, 401, 404)
    assert b"Anemone" not in found.content


def test_forms_of_other_sites_are_refused(site, here):
    here.take_part()
    asked = here.asked()
    ballot = here.ballot(asked)
    post = here.client.post
    assert post("/api/vote", json=ballot).status_code == 403
    assert post("/api/vote", json=ballot, headers={"X-Form": "x" * 22}).status_code == 403
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        assert here.send("/api/vote", ballot, **headers).status_code == 403
    assert post("/api/vote", content=json.dumps(ballot), headers={"X-Form": here.form()}).status_code == 415
    assert post("/register", data={"name": "x"}).status_code == 403
    with Here(site) as other:  # a form that was made for somebody else
        assert post("/register", data={"name": "x", "form": other.form()}).status_code == 403
    assert site.store.votes() == []
    assert (
        here.send("/api/vote", ballot, Origin="http://testserver", **{"Sec-Fetch-Site": "same-origin"}).status_code
        == 200
    )


def test_large_bodies_long_addresses_and_other_methods_are_refused(here):
    here.take_part()
    big = "x" * 20_000
    assert here.send("/api/vote", {"x": big}).status_code == 413
    chunks = (b"x" * 1000 for _ in range(1000))
    sent = here.client.post(
        "/api/vote", content=chunks, headers={"X-Form": here.form(), "Content-Type": "application/json"}
    )
    assert sent.status_code == 413
    assert here.submit("/register", name=big).status_code == 413
    assert here.page("/" + "x" * 600).status_code == 414
    assert here.client.put("/api/vote").status_code == 405
    nested = here.client.post(
        "/api/vote", content="[" * 10_000, headers={"X-Form": here.form(), "Content-Type": "application/json"}
    )
    assert nested.status_code == 400


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "O'H & S"]
)
def test_names_are_text_on_every_page(site, here, name):
    here.take_part(name)
    with Here(site) as organiser:
        shown = organiser.page(f"/admin/{site.keys.admin}").text
    assert str(escape(name)) in shown
    assert "<script>" not in shown
    assert "<img" not in shown


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\x00b", "a\u202eb"])
def test_names_that_are_none_are_refused(site, here, name):
    assert here.submit("/register", name=name).status_code == 422
    assert site.store.observers() == []


def test_every_answer_has_the_headers_that_keep_a_page_to_itself(here):
    for path in ("/", "/static/study.css", "/nothing", "/api/trial", "/health"):
        headers = here.page(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


def test_cookies_are_for_the_server_alone_and_secure_behind_https(site):
    with Here(site) as here:
        here.client.base_url = "https://testserver"
        answer = here.client.post("/register", data={"name": "Ada", "form": here.form()}, follow_redirects=False)
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Secure"))


def test_pages_ask_nothing_of_other_hosts_and_have_no_scripts_or_styles_of_their_own(site, here):
    pages = [here.page().text]
    here.submit("/register", name="Ada")
    pages.append(here.page().text)
    here.submit("/consent")
    pages.append(here.page().text)
    here.send("/check", {"width": 1, "height": 1, "ratio": 1, "zoom": 1, "dark": 0, "light": 0, "colour": 0})
    pages += [here.page().text, here.page(f"/admin/{site.keys.admin}").text]
    files = [
        here.page(f"/static/{name}").text for name in ("trials.js", "viewer.js", "check.js", "study.css", "icon.svg")
    ]
    for text in pages:
        assert re.findall(r'(?:src|href|action)="(?!/|http://testserver/)', text) == []
        assert re.findall(r"<style|\sstyle=|\son\w+=", text) == []
        assert all(
            'type="module" src=' in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text)
        )
    assert not any(re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) for text in files)


def test_a_study_by_invitation_takes_no_strangers_and_a_link_is_a_way_back(study):
    with site_of(edited(study(), QUICK)) as site, Here(site) as here:
        assert here.submit("/register", name="Eve").status_code == 403
        link = f"/join/{site.keys.invitation(4)}"
        asked = here.take_part(link=link).asked()
        here.send("/api/vote", here.ballot(asked))
        with Here(site) as elsewhere:
            elsewhere.page(link)
            assert elsewhere.asked()["position"] == 1
        assert [one.name for one in site.store.observers()] == ["invitation 5"]
        assert site.keys.invitation(4) not in repr(site.store._read("SELECT token FROM observers"))


@pytest.mark.parametrize("kept", [True, False])
def test_it_works_below_the_path_of_a_proxy_that_keeps_or_cuts_it(site, kept):
    with Here(site, "/raim", "/raim" if kept else "") as here:
        page = here.client.get("/raim/" if kept else "/")
        assert 'action="/raim/register"' in page.text
        assert 'href="/raim/static/study.css"' in page.text
        assert "Path=/raim" in page.headers["set-cookie"]
        assert here.client.get("/raim/static/study.css" if kept else "/static/study.css").status_code == 200
    with Here(site, "/raim", "/raim") as here:
        here.take_part()
        assert "http://testserver/raim/join/" in here.page().text
        assert here.send("/api/vote", here.ballot(here.asked())).status_code == 200


def test_the_organiser_sees_progress_leaves_observers_out_and_stops_the_study(site, here):
    here.take_part("Ada")
    asked = here.asked()
    for _ in range(3):
        asked = here.send("/api/vote", here.ballot(asked)).json()
    with Here(site) as organiser:
        shown = organiser.page(f"/admin/{site.keys.admin}").text
        assert "3 of 16" in shown
        assert site.keys.invitation(0) in shown
        assert not any(name in shown for name in ENTRIES)
        assert organiser.submit("/admin/exclude/1", reason="tried keys").status_code == 200
        assert "no: tried keys" in organiser.page("/admin").text
        assert here.send("/api/vote", here.ballot(asked)).status_code == 403
        assert "closed" in here.page().text
        with Here(site) as other:  # gets the hand that is free again
            other.take_part("Grace")
            assert [one.slot for one in site.store.observers()] == [0, 0]
        organiser.submit("/admin/include/1")
        assert here.asked()["position"] == 3
        organiser.submit("/admin/stop")
        assert here.send("/api/vote", here.ballot(asked)).status_code == 403
        assert here.submit("/register", name="Late").status_code == 403
        organiser.submit("/admin/reopen")
        assert here.send("/api/vote", here.ballot(asked)).status_code == 200
        organiser.submit("/admin/invite", more="2")
        assert site.invited == 32
        assert organiser.submit("/admin/invite", more="x").status_code == 422
        assert organiser.submit("/admin/exclude/99", reason="").status_code == 404
    assert here.submit("/admin/stop").status_code == 404


def test_votes_belong_to_the_design_that_they_were_given_for(site):
    folder = site.folder
    site.store.set_meta("x", "y")
    edited(folder, ('title = "Which', 'title = "Now which'))
    Store(folder, open_study(folder)).close()
    edited(folder, ("seed = 0", "seed = 1"))
    with pytest.raises(UserError, match="votes on another design"):
        Store(folder, open_study(folder))
