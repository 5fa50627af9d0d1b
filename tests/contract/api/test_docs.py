import base64
import hashlib
import re

import httpx

EXTERNAL = re.compile(r"""(?:https?:)?//(?!midstream)[a-z0-9.-]+\.[a-z]{2,}""", re.IGNORECASE)


async def test_the_page_and_all_it_loads_come_from_here(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert not EXTERNAL.findall(page.text)
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(loaded) >= 3
    for path in loaded:
        assert path.startswith("/docs/static/")
        asset = await client.get(path)
        assert asset.status_code == 200
        assert len(asset.content) > 1000


async def test_swagger_ui_asks_no_other_host(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert re.search(r'"validatorUrl":\s*null', page)  # else it sends the document's address to its makers
    css = (await client.get("/docs/static/swagger-ui.css")).text
    assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", css)


async def test_the_document_names_every_endpoint_and_its_replies(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    telemetry = {"200", "400", "401", "403", "408", "413", "415", "429", "503"}
    expected = {
        ("/api/data/v1/telemetry", "post"): telemetry,
        ("/v1/telemetry", "post"): telemetry,
        ("/v1/validate", "post"): {"200", "400", "401", "413", "415", "503"},
        ("/v1/trace/{mid}", "get"): {"200", "400", "401", "404", "503"},
        ("/v1/trace", "post"): {"200", "400", "401", "408", "413", "415", "503"},
        ("/v1/dimensions/{type}/{id}", "put"): {"200", "400", "401", "403", "404", "413", "503"},
        ("/v1/dimensions/{type}/{id}", "get"): {"200", "401", "403", "404", "503"},
        ("/v1/dimensions/{type}", "post"): {"200", "400", "401", "403", "404", "503"},
        ("/api/api-manager/v1/consumer/{name}/credential/register", "post"): {"200", "400", "401", "403", "409", "503"},
        ("/v3/device/register/{did}", "post"): {"200", "400", "401", "408", "413", "415", "503"},
        ("/v3/device/profile/{did}", "get"): {"200", "400", "401", "503"},
        ("/v1/dimensions/{type}/{id}", "delete"): {"202", "400", "401", "403", "404", "409", "503"},
        ("/api/data/v1/index/sync", "post"): {"200", "400", "401", "403", "408", "413", "415", "500", "503"},
        ("/v1/sync", "get"): {"200", "400", "401", "403", "404", "503"},
        ("/v1/sync/{id}", "get"): {"200", "401", "403", "404", "503"},
        ("/v1/sync/{id}/cancel", "post"): {"202", "401", "403", "404", "409", "503"},
        ("/health", "get"): {"200"},
        ("/accepting", "get"): {"200", "503"},
        ("/ready", "get"): {"200", "503"},
        ("/metrics", "get"): {"200"},
    }
    for (path, method), statuses in expected.items():
        assert statuses <= set(paths[path][method]["responses"]), path
        assert "422" not in paths[path][method]["responses"], path
    for path, method in expected:
        operation = paths[path][method]
        guarded = not path.startswith(("/health", "/accepting", "/ready", "/metrics"))
        assert bool(operation.get("security")) == guarded, path
    assert "bearer" in document["components"]["securitySchemes"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


async def test_the_example_of_a_batch_is_a_good_one(client: httpx.AsyncClient, app_token: dict[str, str]) -> None:
    document = (await client.get("/openapi.json")).json()
    for path in ("/v1/telemetry", "/v1/validate"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        report = (await client.post("/v1/validate", json=example, headers=app_token)).json()
        assert (report["valid"], report["invalid"]) == (1, 0), report


async def test_the_document_refers_to_nothing_it_lacks(client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    assert '"$ref"' not in text
    assert "HTTPValidationError" not in text


async def test_the_first_page_leads_on(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    for path in set(re.findall(r'href="([^"]+)"', page.text)):
        assert (await client.get(path)).status_code == 200


async def test_the_document_shows_partners_what_they_can_do(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "`/v1/datasets`" in document["info"]["description"]
    scheme = document["components"]["securitySchemes"]["licence key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    download = document["paths"]["/v1/datasets/{dataset}/{resource}/{first}/{last}"]
    manifest = document["paths"]["/v1/datasets/{dataset}/{resource}/{first}/{last}/manifest"]
    assert {"/v1/datasets/{dataset}/{resource}/{first}", "/v1/datasets/{dataset}/{resource}"} < set(document["paths"])
    assert "security" not in download["post"]  # its key is in the body
    for operation in (download["get"], manifest["get"]):
        assert operation["security"] == [{"licence key": []}]
    for operation in (download["post"], download["get"], manifest["get"]):
        names = [one["name"] for one in operation["parameters"] if one["in"] == "query"]
        assert names == ["format", "eid", "channel"]
        codes = {
            (status, code, example["value"]["params"]["err"])
            for status, reply in operation["responses"].items()
            for code, example in reply.get("content", {}).get("application/json", {}).get("examples", {}).items()
        }
        assert codes == {
            (status, code, code)
            for status, code in (
                ("400", "INVALID_DATA_ERROR"),
                ("400", "INVALID_DATE"),
                ("400", "DATE_RANGE_TOO_LARGE"),
                ("401", "LOGIN_FAILED"),
                ("403", "AUTHORIZATION_FAILED"),
                ("410", "INVALID_DATE"),
                ("500", "INTERNAL_ERROR"),
                ("503", "INTERNAL_ERROR"),
            )
        }
    assert list(download["post"]["responses"]["200"]["content"]) == ["application/zip"]


async def test_the_document_shows_each_code_and_form_of_a_sync(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/api/data/v1/index/sync"]["post"]
    forms = operation["requestBody"]["content"]
    assert set(forms) == {"application/json", "application/x-www-form-urlencoded", "multipart/form-data"}
    examples = operation["responses"]["400"]["content"]["application/json"]["examples"]
    assert {code: example["value"]["params"]["err"] for code, example in examples.items()} == {
        code: code for code in ("UOS_0003", "UOS_0028", "UOS_0061", "UOS_0072")
    }
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    example = forms["application/json"]["example"]
    del example["request"]["operationType"]
    real = (await client.post("/api/data/v1/index/sync", json=example, headers=operator)).json()
    del shown["result"]["esSyncResponse"]
    assert (set(real), set(real["params"]), set(real["result"])) == (
        set(shown),
        set(shown["params"]),
        set(shown["result"]),
    )


async def test_the_page_lets_the_browser_run_nothing_but_its_own(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inline]
    assert len(hashes) == 1
    assert policy["script-src"] == f"'self' 'sha256-{hashes[0]}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert "http" not in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["x-content-type-options"] == "nosniff"
