"""What an operator sets, checks before a start, and reads in the log."""

import io
import json
import logging
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.auth import generate_key, sign
from gateway.config import GatewayConfig
from gateway.logs import HIDDEN, hidden, logger
from tests.gateway.certificate import make_certificate
from wellhead.cli import main
from wellhead.config import Config
from wellhead.logs import set_up
from wellhead.preflight import problems
from wellhead.settings import SettingsError, configure, read

OPTIONS = {"data_dir": Path("d"), "port": 8_765, "markets": (), "tls_cert": None, "tls_key": None, "origins": ()}


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wellhead.toml"
    path.write_text(text)
    return path


def test_a_file_and_the_options_over_it(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path,
        'port = 9_000\nmarkets = ["L4-EUC"]\ntls_cert = "c.pem"\ntls_key = "k.pem"\n'
        '[gateway]\nrate_per_s = 7\norigins = ["https://a.example"]\n[limits]\nmax_accounts = 9\n',
    )
    config = configure(path, OPTIONS, {})
    assert (config.port, config.markets, config.tls_cert) == (9_000, ("L4-EUC",), tmp_path / "c.pem")
    assert (config.gateway.rate_per_s, config.gateway.origins) == (7, ("https://a.example",))
    assert config.limits.max_accounts == 9
    over = configure(path, {**OPTIONS, "port": 1}, {"port": 1, "origins": ("*",)})
    assert (over.port, over.gateway.origins, over.gateway.rate_per_s) == (1, ("*",), 7)
    plain = configure(None, OPTIONS, {})
    assert (plain.port, plain.gateway) == (8_765, GatewayConfig())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "wellhead.toml"),
        ("prot = 1", "no setting prot"),
        ("[gateway]\nrate = 1", "no setting gateway.rate"),
        ('port = "1"', "port = '1': a int"),
        ("port = true", "port = True"),
        ("port = -1", "not below zero"),
        ("markets = [1]", "markets"),
        ("gateway = 1", "gateway is a table"),
        ('markets = ["L4"]', "not CLASS-REGION"),
        ('tls_cert = "c.pem"', "go together"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace("[", r"\[")):
        configure(settings_file(tmp_path, text), OPTIONS, {})


def test_every_setting_of_the_gateway_can_be_in_a_file(tmp_path: Path) -> None:
    config = GatewayConfig()
    lines = []
    for name in GatewayConfig.__dataclass_fields__:
        value = getattr(config, name)
        lines.append(f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}")
    assert read(settings_file(tmp_path, "[gateway]\n" + "\n".join(lines)))["gateway"] == config


def test_a_start_that_would_go_well(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    assert problems(Config(tmp_path / "new" / "data", port=0, tls_cert=cert, tls_key=key)) == []
    assert not (tmp_path / "new").exists()


def test_what_a_start_would_stumble_over(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    key.chmod(0o644)
    cert.write_text("no certificate")
    (tmp_path / "keys.json").write_text("{")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(tmp_path, port=taken.getsockname()[1], tls_cert=cert, tls_key=key)
        found = problems(config)
    for word in ("keys cannot be read", "no certificate", "read by others", "cannot be listened on"):
        assert any(word in problem for problem in found), found
    assert len(found) == 4
    (tmp_path / "file").write_text("")
    assert problems(Config(tmp_path / "file", port=0)) == [f"{tmp_path / 'file'} is not a directory"]


def test_check_on_the_command_line(tmp_path: Path) -> None:
    run = CliRunner()
    good = run.invoke(main, ["serve", "--check", "--data", str(tmp_path / "d"), "--port", "0"])
    assert (good.exit_code, "ready to serve" in good.output) == (0, True)
    (tmp_path / "keys.json").write_text("{")
    bad = run.invoke(main, ["serve", "--check", "--data", str(tmp_path), "--port", "0"])
    assert bad.exit_code == 1
    path = settings_file(tmp_path, "prot = 1")
    wrong = run.invoke(main, ["serve", "--check", "--config", str(path)])
    assert wrong.exit_code == 2


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("logging_as_before")
def test_the_log_is_structured_and_has_no_secrets() -> None:
    private, public = generate_key()
    signature = sign(private, "c", "k", 1)
    stream = io.StringIO()
    set_up(logging.INFO, as_json=True, stream=stream)
    logger("gateway.test").info("logon", key="k", sig="anything", nested={"private_key": "x", "text": f"<{private}>"})
    logging.getLogger("gateway.plain").warning("it failed with %s of %s", signature, "k")
    logging.getLogger("websockets.server").debug("< TEXT %s", signature)
    try:
        raise ValueError(private)
    except ValueError:
        logging.getLogger("gateway.plain").exception("a fault")
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["key"], first["sig"], first["level"]) == ("logon", "k", HIDDEN, "info")
    assert first["nested"] == {"private_key": HIDDEN, "text": f"<{HIDDEN}>"}
    assert second["event"] == f"it failed with {HIDDEN} of k"
    assert "ValueError" in third["exception"]
    for secret in (private, signature, bytes.fromhex("ab" * 32).hex()):
        assert secret not in stream.getvalue()
    assert hidden(f"x {public} y") == f"x {HIDDEN} y"
    assert hidden(["H100S-USE-H26112214", 7, b"abc"]) == ["H100S-USE-H26112214", 7, "abc"]


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("as_json", [False, True])
def test_no_traceback_and_no_address_of_a_server_tells_a_password(as_json: bool) -> None:
    """Neither in the lines for people, which some renderers fill with the values of variables."""
    private, _ = generate_key()
    stream = io.StringIO()
    set_up(logging.INFO, as_json=as_json, stream=stream)
    try:
        password = f"hunter{len(private)}-{private[:9]}"
        raise ValueError(f"nothing at postgresql://books:{password}@host/db, key {private}")
    except ValueError:
        logging.getLogger("wellhead.cluster").exception("a fault of host=h password=%s user=u", password)
    logging.getLogger("wellhead.cluster").warning("nats://%s@n1:4222 and nats://n2:4222", f"user:{password}")
    said = stream.getvalue()
    assert "ValueError" in said and "@host/db" in said and "user=u" in said and "@n1:4222 and nats://n2:4222" in said
    assert password not in said and private not in said


class _Connection:
    remote_address = ("192.0.2.7", 4_711, 0, 0)


@pytest.mark.usefixtures("logging_as_before")
def test_the_log_says_whose_connection_it_is() -> None:
    """The websockets library hands over the connection, perhaps through a reference to one that is gone."""
    stream = io.StringIO()
    set_up(logging.INFO, as_json=True, stream=stream)
    connection = _Connection()
    library = logging.getLogger("websockets.server")
    library.info("connection open", extra={"websocket": weakref.proxy(connection)})
    gone = weakref.proxy(connection)
    del connection
    library.info("connection closed", extra={"websocket": gone})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["ip"], first["port"]) == ("192.0.2.7", 4_711)
    assert "websocket" not in first and not {"websocket", "ip"} & second.keys()


@pytest.mark.usefixtures("logging_as_before")
def test_the_log_for_people() -> None:
    stream = io.StringIO()
    set_up(logging.INFO, stream=stream)
    logger("gateway.test").info("closed", code=4003)
    assert "closed" in stream.getvalue() and "code=4003" in stream.getvalue()
