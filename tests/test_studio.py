"""The studio's routes: who may ask, what is refused in one line, and jobs that run, stop and die."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

import saved
from unlearnkit import chain
from unlearnkit.evaluation.report import report
from unlearnkit.export import save_lora
from unlearnkit.model.edit import Edit
from unlearnkit.model.load import load
from unlearnkit.studio.app import POLICY, Studio

TOKEN, PORT = "token-of-a-test", 8123
HERE = f"http://127.0.0.1:{PORT}"
ODD = [
    "../../etc/passwd",
    "/etc/passwd",
    "runs/../../run",
    "run\0",
    "x" * 600,
    "<script>alert(1)</script>",
    "--out=/tmp",
    "~",
    "",
]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    (tmp_path / "home").mkdir()
    shutil.copytree(saved.folder(), tmp_path / "home" / "toy")
    made = Studio(tmp_path / "home", token=TOKEN, port=PORT)
    yield made
    made.close()


@pytest.fixture
def client(studio: Studio) -> TestClient:
    """A browser at the right address; ``/`` in a path stays as it is."""
    return TestClient(studio.app, base_url=f"{HERE}/{TOKEN}/")


def ended(studio: Studio, seconds: float = 120) -> str:
    """How the newest job ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if state := studio.jobs.all()[0].ended:
            return state
        time.sleep(0.1)
    raise AssertionError(f"still at work: {[*studio.jobs.all()[0].lines]}")


def reached(studio: Studio, stage: str, seconds: float = 120) -> None:
    """Wait until the newest job is in a stage."""
    until = time.monotonic() + seconds
    while studio.jobs.all()[0].stage != stage:
        assert time.monotonic() < until and not studio.jobs.all()[0].ended, [*studio.jobs.all()[0].lines]
        time.sleep(0.05)


def test_only_the_right_address_is_answered(studio: Studio) -> None:
    with TestClient(studio.app, base_url=HERE) as browser:
        assert browser.get(f"/{TOKEN}/erase").status_code == 200
        assert browser.get(f"/{TOKEN}/", follow_redirects=False).headers["location"] == "erase"
        for path in ("/", "/erase", "/wrong/erase", f"/{TOKEN[:-1]}/erase", f"/{TOKEN}x/erase", "/é/erase"):
            answer = browser.get(path)
            assert answer.status_code == 403
            assert TOKEN not in answer.text
        assert browser.get(f"/{TOKEN}/erase", headers={"Host": f"localhost:{PORT}"}).status_code == 200
        for host in (
            "evil.example",
            f"evil.example:{PORT}",
            "127.0.0.1",
            "127.0.0.1:1",
            f"127.0.0.1:{PORT}.evil",
        ):
            assert browser.get(f"/{TOKEN}/erase", headers={"Host": host}).status_code == 403
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1"):
            answer = browser.post(f"/{TOKEN}/start", data={"what": "dry"}, headers={"Origin": origin})
            assert answer.status_code == 403
        assert browser.get(f"/{TOKEN}/start").status_code == 405, "a link starts nothing"
    assert studio.jobs.all() == []


def test_no_page_of_another_origin_can_use_it(client: TestClient) -> None:
    headers = client.get("erase").headers
    assert headers["content-security-policy"] == POLICY
    assert "default-src 'none'" in POLICY
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_was_not_found_is_refused_and_never_opened(client: TestClient, name: str) -> None:
    asks = [
        client.get("picture", params={"model": name, "prompt": "a cat"}),
        client.get("picture", params={"model": "toy", "run": name or "none", "prompt": "a cat"}),
        client.get("file", params={"what": "grid", "run": name}),
        client.get("file", params={"what": name, "run": "toy"}),
        client.post("command", data={"what": "resume", "run": name}),
        client.post("command", data={"what": "export", "run": name}),
        client.post("command", data={"what": name, "model": "toy"}),
        client.post("command", data={"what": "erase", "model": name, "concept": "cat"}),
        client.post("command", data={"what": "chain-add", "chain": name, "concept": "cat"}),
    ]
    for answer in asks:
        assert answer.status_code == 400
        assert "\n" not in answer.text
        assert len(answer.text) < 400
    for tab, field in (
        ("look", "run"),
        ("check", "run"),
        ("ship", "run"),
        ("requests", "chain"),
        ("erase", "model"),
    ):
        answer = client.get(tab, params={field: name})
        assert answer.status_code == (400 if name else 200)
        assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"concept": ""}, "the concept is missing"),
        ({"concept": "x" * 501}, "at most 500"),
        ({"concept": "cat\0"}, "no command takes"),
        ({"concept": "cat", "method": "escalator"}, "method 'escalator' is unknown"),
        ({"concept": "cat", "method": "esd", "set-steps": "many"}, "steps"),
        ({"concept": "cat", "method": "uce", "set-steps": "3"}, "steps"),
        ({"concept": "cat", "seed": "-1"}, "no whole number"),
        ({"concept": "cat", "instead": "Cat"}, "replaced by itself"),
        ({"concept": "cat", "keep": ",".join(map(str, range(50)))}, "at most 40"),
    ],
)
def test_what_a_command_cannot_take_is_said_before_it_starts(
    studio: Studio, client: TestClient, fields: dict[str, str], says: str
) -> None:
    for address in ("command", "start"):
        answer = client.post(address, data={"what": "erase", "model": "toy", **fields})
        assert answer.status_code == 400
        assert says in answer.text
    assert studio.jobs.all() == []


def test_a_value_with_a_dash_or_a_quote_stays_a_value(client: TestClient) -> None:
    odd = {"concept": "--out", "instead": "-5", "phrase": "it's, $(x)", "keep": "a dog", "name": "../My Run"}
    answer = client.post("command", data={"what": "erase", "model": "toy", "method": "uce", **odd})
    assert answer.text == (
        "unlearnkit erase toy --concept=--out --instead=-5 --phrase 'it'\"'\"'s' --phrase '$(x)' "
        "--keep 'a dog' --method uce --out runs/my-run --no-pipeline"
    )


def test_a_form_that_is_too_large_is_refused(client: TestClient) -> None:
    assert "too large" in client.post("command", data={"concept": "x" * 200_000}).text
    assert "too many fields" in client.post("command", data={f"f{i}": "" for i in range(600)}).text


def test_a_concept_is_text_on_the_page(client: TestClient) -> None:
    page = client.get("erase", params={"concept": saved.SCRIPT, "name": '"><b>'}).text
    assert saved.SCRIPT not in page
    assert '"><b>' not in page


def test_erase_then_look(studio: Studio, client: TestClient) -> None:
    fields = {"what": "erase", "model": "toy", "concept": "cat", "method": "uce", "tab": "erase"}
    assert client.post("start", data=fields).status_code == 204
    again = client.post("start", data={**fields, "concept": "dog"})  # from another tab
    assert again.status_code == 400
    assert "another job is at work (erase cat)" in again.text
    assert ended(studio) == "done", [*studio.jobs.all()[0].lines]
    assert (studio.folder / "runs" / "uce-cat-0" / "run.json").is_file()
    page = client.get("panel", params={"tab": "erase"})
    assert "unlearnkit erase toy --concept cat --method uce --no-pipeline" in page.text
    assert "look?run=runs%2Fuce-cat-0" in page.text
    assert client.get("panel", params={"tab": "erase", "seen": page.headers["x-state"]}).status_code == 204
    assert "erase cat" not in client.get("panel", params={"tab": "look"}).text
    assert client.get("file", params={"what": "grid", "run": "runs/uce-cat-0"}).content.startswith(b"\x89PNG")
    assert 'data-picture="picture?' in client.get("look", params={"run": "runs/uce-cat-0"}).text
    asked = {"run": "runs/uce-cat-0", "prompt": "a cat", "seed": "3", "steps": "2"}
    before, none, whole, more = (
        client.get("picture", params={**asked, **one}).content
        for one in ({"model": "toy", "run": ""}, {"strength": "0"}, {"strength": "1"}, {"strength": "1.5"})
    )
    pixels = [Image.open(io.BytesIO(one)).tobytes() for one in (before, none, whole, more)]
    assert pixels[0] == pixels[1]
    assert len(set(pixels)) == 3
    facts = json.loads(Image.open(io.BytesIO(more)).text["unlearnkit"])  # type: ignore[attr-defined]
    assert facts["strength"] == 1.5
    assert (facts["prompt"], facts["seed"], facts["steps"], len(facts["edit"])) == ("a cat", 3, 2, 64)


def test_a_job_that_is_killed_says_so_and_is_resumed(studio: Studio, client: TestClient) -> None:
    fields = {"what": "erase", "model": "toy", "concept": "cat", "method": "esd", "tab": "erase"}
    slow = {"set-steps": "100000", "set-batch": "1", "set-start": "student"}
    answer = client.post("start", data={**fields, **slow})
    assert answer.status_code == 204, answer.text
    reached(studio, "training")
    os.killpg(studio.jobs.all()[0].process.pid, signal.SIGKILL)
    assert ended(studio) == "died"
    page = client.get("panel", params={"tab": "erase"}).text
    assert "The process was killed (SIGKILL)" in page
    assert "what=resume" in page
    run = studio.jobs.all()[0].folder
    assert run in client.get("erase").text, "it is listed as unfinished"
    assert client.post("start", data={"what": "resume", "run": run, "tab": "erase"}).status_code == 204
    reached(studio, "training")
    client.post("stop", data={"job": str(studio.jobs.all()[0].number)})
    assert ended(studio) == "stopped"


def test_a_command_that_is_refused_says_why(studio: Studio, client: TestClient) -> None:
    run = studio.folder / "run"
    run.mkdir()
    (run / "recipe.toml").write_text('model = "toy"\nmethod = "escalator"\n[[erase]]\nname = "cat"\n')
    assert client.post("start", data={"what": "resume", "run": "run", "tab": "erase"}).status_code == 204
    assert ended(studio) == "refused"
    assert "escalator&#39; is unknown" in client.get("panel", params={"tab": "erase"}).text


def test_a_verdict_has_its_interval_and_its_report(
    studio: Studio, client: TestClient, evaluated: Path
) -> None:
    shutil.copytree(evaluated, studio.folder / "run")
    report(studio.folder / "run")
    page = client.get("check", params={"run": "run"}).text
    assert "still seen" in page
    assert re.search(r"\d of \d, [\d.]+ % \([\d.]+ to [\d.]+\)", page)
    assert "unlearnkit verify run" in page
    assert saved.SCRIPT not in page
    answer = client.get("file", params={"what": "report", "run": "run"})
    assert "Under attack" in answer.text or "verdict" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    script = answer.text.rpartition("<script>")[2].partition("</script>")[0]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy, (
        "its own script may run"
    )
    tables = studio.folder / "run" / "evaluation" / "prompts-rows" / "tables.json"
    tables.write_text(tables.read_text().replace("0.05", "0.06"))
    assert "tables.json" in client.get("check").text.partition('role="alert">')[2].partition("<")[0]


def test_a_chain_is_a_time_line(studio: Studio, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(studio.folder)
    chain.init("project", "toy", method="uce", pictures=0)
    chain.add("project", "cat")
    page = client.get("requests").text
    assert "<strong>cat</strong> erased with uce" in page
    assert "unlearnkit chain verify project" in page
    fields = {"chain": "project", "concept": "dog", "set-erase_weight": "2"}
    answer = client.post("command", data={"what": "chain-add", **fields})
    assert answer.text == "unlearnkit chain add project --concept dog --set erase_weight=2"
    assert "unknown" in client.post("command", data={"what": "chain-add", **fields, "set-steps": "2"}).text
    answer = client.post("command", data={"what": "chain-drop", "chain": "project", "number": "1"})
    assert answer.text == "unlearnkit chain drop project 1"
    answer = client.post("command", data={"what": "chain-init", "name": "a/../b", "model": "toy"})
    assert answer.text == "unlearnkit chain init a-b toy"
    (studio.folder / "project" / "ledger.jsonl").write_text("{}\n")
    assert "ledger" in client.get("requests").text.partition('role="alert">')[2].partition("<")[0]


def test_what_is_exported_is_listed_with_what_loads_it(
    studio: Studio, client: TestClient, evaluated: Path
) -> None:
    shutil.copytree(evaluated, studio.folder / "run")
    (studio.folder / "odd.safetensors").write_bytes(b"\xff" * 100)
    save_lora(
        load(saved.folder()),
        Edit.load(evaluated / "edit.safetensors"),
        studio.folder / "l.safetensors",
        lose=0,
    )
    page = client.get("ship", params={"run": "run"}).text
    assert "A LoRA of rank" in page
    assert "unlearnkit did not write it" in page
    fields = {"what": "export", "run": "run", "name": "../../x", "lose": "0", "into": "odd.safetensors"}
    answer = client.post("command", data=fields)
    assert answer.text == "unlearnkit export run --out x.safetensors --into odd.safetensors --lose 0"


def test_pictures_of_a_users_own_model_are_covered(studio: Studio, client: TestClient) -> None:
    assert "curtain" in client.get("look", params={"model": "toy"}).text
    assert "curtain" not in client.get("look", params={"model": "canvas"}).text


def test_links_out_of_the_folder_are_not_followed(studio: Studio, client: TestClient, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "recipe.toml").write_text('model = "canvas"\nmethod = "uce"\n[[erase]]\nname = "cat"\n')
    Image.new("RGB", (4, 4)).save(outside / "grid.png")
    (studio.folder / "linked").symlink_to(outside)
    inside = studio.folder / "run"
    inside.mkdir()
    shutil.copy(outside / "recipe.toml", inside)
    (inside / "grid.png").symlink_to(outside / "grid.png")
    assert [*studio.workspace().runs] == ["run"]
    answer = client.get("file", params={"what": "grid", "run": "run"})
    assert answer.status_code == 400
    assert "symbolic link" in answer.text


def test_a_setting_that_is_true_or_false_is_a_choice(client: TestClient) -> None:
    page = client.get("erase?method=doco&set-released=true").text
    select = page.partition('<select id="set-released"')[2].partition("</select>")[0]
    assert select.count("<option") == 2, "its default, and the other"
    assert '<option value="">false (default)</option><option selected>true</option>' in select
