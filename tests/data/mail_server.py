"""A mail server of the tests: aiosmtpd, with certificates by trustme.

It is started with a directory, `none`, `starttls` or `implicit`, and maybe a user and a password. It writes `ca.pem` and
then `port` there, and a line of JSON to `events` for everything that happens. The local part of a recipient says what it
does about a message:

later-N       refuses the recipient N times, for now
never         refuses the recipient, for good
busy-N        refuses the message itself N times, for now
bad           refuses the message itself, for good
hold-EVENT-N  waits after that event, once for each N: rcpt, begun, data, stored
mute          never answers when it has the message
"""

import asyncio
import json
import os
import ssl
import sys
from email import message_from_bytes, policy

import trustme
from aiosmtpd.smtp import SMTP, AuthResult

# Longer than a test takes to kill the other side, whose end also ends the wait.
HOLD_SECONDS = 30.0

directory, tls, *login = sys.argv[1:]
refused = {}
held = set()


def note(event, **more):
    with open(os.path.join(directory, "events"), "a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, **more}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def local(address):
    return address.split("@")[0]


def is_refused_now(address, word):
    """Whether an address such as `later-2` is to be refused once more."""
    name, _, times = local(address).partition("-")
    if name != word or refused.get(address, 0) >= int(times):
        return False
    refused[address] = refused.get(address, 0) + 1
    return True


async def hold(event, addresses):
    for address in addresses:
        if local(address).startswith(f"hold-{event}-") and address not in held:
            held.add(address)
            await asyncio.sleep(HOLD_SECONDS)


def parts(message):
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            yield {
                "type": part.get_content_type(),
                "name": part.get_filename(),
                "content": content.decode("utf-8", "replace"),
            }


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        note("rcpt", to=address)
        await hold("rcpt", [address])
        if is_refused_now(address, "later"):
            return "451 4.7.1 try again later"
        if local(address) == "never":
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        to = envelope.rcpt_tos
        message = message_from_bytes(envelope.content, policy=policy.SMTPUTF8)
        note("data", id=message["message-id"])
        await hold("data", to)
        if any(is_refused_now(address, "busy") for address in to):
            return "451 4.3.0 try again later"
        if any(local(address) == "bad" for address in to):
            return "554 5.6.0 not this message"
        note(
            "stored",
            id=message["message-id"],
            sender=envelope.mail_from,
            to=to,
            encrypted=server.transport.get_extra_info("sslcontext") is not None,
            user=session.auth_data.login.decode() if session.authenticated else None,
            headers={name.lower(): str(value) for name, value in message.items()},
            parts=list(parts(message)),
        )
        await hold("stored", to)
        if any(local(address) == "mute" for address in to):
            await asyncio.Future()
        return "250 2.0.0 queued"


class Server(SMTP):
    async def smtp_DATA(self, argument):
        note("begun")
        await hold("begun", self.envelope.rcpt_tos)
        await super().smtp_DATA(argument)


def authenticate(server, session, envelope, mechanism, data):
    is_right = [data.login.decode(), data.password.decode()] == login
    return AuthResult(success=is_right, auth_data=data)


async def main():
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(os.path.join(directory, "ca.pem"))
    settings = {"hostname": "mail.test", "enable_SMTPUTF8": True}
    if tls == "starttls":
        settings |= {"tls_context": context, "require_starttls": True}
    if login:
        settings |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": tls == "starttls"}
    listener = await asyncio.get_running_loop().create_server(
        lambda: Server(Handler(), **settings),
        "127.0.0.1",
        0,
        ssl=context if tls == "implicit" else None,
    )
    port = os.path.join(directory, "port")
    with open(port + ".new", "w", encoding="utf-8") as file:
        file.write(str(listener.sockets[0].getsockname()[1]))
    os.rename(port + ".new", port)
    await listener.serve_forever()


asyncio.run(main())
