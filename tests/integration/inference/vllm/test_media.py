"""Media of requests come from where the operator allows it: a tiny random LLaVA and two hosts.

The model's weights are random, so what it says does not matter; it has to have seen an image.
"""

import base64
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.v1.inference_pb2_grpc import InferenceStub

TOKENIZER = Path(__file__).parents[4] / "examples/tiny-glm/model"
# Both are this machine; only the first is allowed.
ALLOWED, OTHER = "localhost", "127.0.0.1"
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def _png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Host:
    """A server of images that counts connections."""

    port: int = 0
    connections: list[str] = field(default_factory=list)

    def url(self, name: str, path: str = "/red.png") -> str:
        return f"http://{name}:{self.port}{path}"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host, image = Host(), _png()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.connections.append(self.path)
            if self.path == "/redirect.png":
                self.send_response(302)
                self.send_header("Location", host.url(OTHER))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            self.wfile.write(image)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield host
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without weights, which vLLM makes up (`load_format=dummy`)."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE
    image = tokenizer.convert_tokens_to_ids("<image>")
    vision = t.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=32,
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=1024,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_token_id=image,
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=4,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("llava")
    config.architectures, config.dtype = ["LlavaForConditionalGeneration"], "bfloat16"
    config.save_pretrained(directory)
    images = t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    t.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(directory)  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def vision(vision_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    directory = tmp_path_factory.mktemp("vision")
    flags = ("--model-name", "vision", "--max-model-len", "512", "--allowed-media-domain", ALLOWED)
    weights = ("--engine-arg", "load_format=dummy")
    pod = processes.vllm_pod(directory, vision_model, "vision", *flags, *weights)
    with processes.running(pod):
        yield pod


@pytest.fixture(scope="module")
def http(vision: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{vision.http_address}", timeout=60) as client:
        yield client


def chat(url: str, kind: str = "image_url") -> tuple[str, dict[str, Any]]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": kind, kind: {"url": url}}]
    messages = [{"role": "user", "content": parts}]
    return "/v1/chat/completions", {"model": "vision", "messages": messages, "max_tokens": 2}


def anthropic(url: str) -> tuple[str, dict[str, Any]]:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]
    messages = [{"role": "user", "content": parts}]
    return "/v1/messages", {"model": "vision", "messages": messages, "max_tokens": 2}


def responses(url: str) -> tuple[str, dict[str, Any]]:
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    body = {"model": "vision", "input": [{"role": "user", "content": parts}]}
    return "/v1/responses", body | {"max_output_tokens": 2}


APIS = [chat, anthropic, responses]


@pytest.mark.parametrize("api", APIS)
def test_an_allowed_host_is_fetched_from(http: httpx.Client, host: Host, api: Any) -> None:
    host.connections.clear()
    path, body = api(host.url(ALLOWED, f"/{api.__name__}.png"))

    found = http.post(path, json=body)

    assert found.status_code == 200, found.text
    assert host.connections == [f"/{api.__name__}.png"]


@pytest.mark.parametrize("api", APIS)
def test_another_host_is_rejected_before_a_connection_is_made(
    http: httpx.Client, host: Host, api: Any
) -> None:
    host.connections.clear()
    path, body = api(host.url(OTHER))

    found = http.post(path, json=body)

    assert found.status_code == 400, found.text
    assert "image_url is on '127.0.0.1'" in found.text
    assert host.connections == []


def test_a_redirect_is_not_followed(http: httpx.Client, host: Host) -> None:
    host.connections.clear()
    path, body = chat(host.url(ALLOWED, "/redirect.png"))

    found = http.post(path, json=body)

    assert 400 <= found.status_code < 500, found.text
    assert host.connections == ["/redirect.png"]


def test_data_urls_are_always_taken(http: httpx.Client) -> None:
    path, body = chat("data:image/png;base64," + base64.b64encode(_png()).decode())

    found = http.post(path, json=body)

    assert found.status_code == 200, found.text


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://localhost/x.png",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost@169.254.169.254/x.png",
        "http://169.254.169.254#@localhost/x.png",
        "http://localhost.evil.example/x.png",
        "//localhost/x.png",
        "http://[::1]/x.png",
        "http://[",
    ],
)
def test_every_other_url_is_a_400_that_names_the_field(http: httpx.Client, url: str) -> None:
    path, body = chat(url)

    found = http.post(path, json=body)

    assert found.status_code == 400, found.text
    assert found.json()["error"]["param"] == "image_url"


def test_grpc_names_the_messages(vision: Process, host: Host) -> None:
    host.connections.clear()
    parts = [v1.ContentPart(text="x"), v1.ContentPart(image_url=host.url(OTHER))]
    message = v1.ChatMessage(role="user", parts=parts)
    with grpc.insecure_channel(vision.grpc_address) as channel, pytest.raises(grpc.RpcError) as no:
        InferenceStub(channel).Chat(v1.ChatRequest(model="vision", messages=[message]), timeout=60)

    assert no.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "this model takes media from" in str(no.value.details())
    assert host.connections == []


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
async def test_without_domains_no_host_is_allowed_for_any_kind(kind: str, host: Host) -> None:
    from vllm.exceptions import VLLMValidationError

    from autoglm.inference.vllm.media import AllowedMedia

    host.connections.clear()
    connector = AllowedMedia()
    with pytest.raises(VLLMValidationError) as rejected:
        await getattr(connector, f"fetch_{kind}_async")(host.url(ALLOWED))
    with pytest.raises(VLLMValidationError):
        getattr(connector, f"fetch_{kind}")(host.url(ALLOWED))

    assert rejected.value.parameter == f"{kind}_url"
    assert host.connections == []
