"""Whether a page asks anything of anyone but its own server, keeps within its policy, and says nothing of errors."""

from urllib.parse import urlsplit

from chromium import Page

LISTEN = """
window.violations = [];
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
  window.violations.push(`${violatedDirective}: ${blockedURI} (${sourceFile ?? ''}:${lineNumber})`));
"""
STRICT = ("default-src 'self'", "object-src 'none'", "base-uri 'none'")
LOOSE = ("'unsafe-eval'", "'unsafe-hashes'", "*", "http:", "https:")


def findings(page: Page, origin: str) -> list[str]:
    """What the open page asked of others, what its policy forbade, what failed, and whether it has a strict policy."""
    lines = []
    for request in page.reported("Network.requestWillBeSent"):
        address = request["request"]["url"]
        if urlsplit(address).scheme not in {"data", "blob"} and not address.startswith(f"{origin}/"):
            lines.append(f"a request leaves the server: {address[:120]}")
    for response in page.reported("Network.responseReceived"):
        if response["response"]["status"] >= 400:
            lines.append(f"is not there: {response['response']['url']}")
    lines += [f"against the policy: {violation}" for violation in page.evaluate("window.violations")]
    for error in page.reported("Runtime.exceptionThrown"):
        details = error["exceptionDetails"]
        lines.append(f"a script failed: {details.get('exception', {}).get('description', details['text'])[:200]}")
    for said in page.reported("Runtime.consoleAPICalled"):
        if said["type"] in {"error", "warning"}:
            words = " ".join(str(part.get("value", part.get("description"))) for part in said["args"])
            lines.append(f"the console says: {words[:200]}")
    policy = page.evaluate("document.querySelector('meta[http-equiv=Content-Security-Policy]')?.content ?? ''")
    lines += [f"the policy lacks {part}" for part in STRICT if part not in policy]
    scripts = next((part for part in policy.split(";") if part.split()[:1] == ["script-src"]), "script-src *").split()
    lines += [f"the policy lets scripts be {part}" for part in [*LOOSE, "'unsafe-inline'"] if part in scripts]
    return lines
