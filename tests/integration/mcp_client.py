"""The official Python client against `dryfit mcp`: handshake and 2026-07-28, tools, calls, errors. Arguments: the binary, a memory snapshot. Prints what it saw as JSON."""
import asyncio
import json
import sys

from mcp import StdioServerParameters
from mcp.client.client import Client

REQUEST = {"depth": 26, "device_batch_size": 32, "gpu": "h100", "gpus": 8}


async def session(mode):
    server = StdioServerParameters(command=sys.argv[1], args=["mcp"], env={"XDG_DATA_HOME": "/nonexistent"})
    async with Client(server, mode=mode) as client:
        tools = (await client.list_tools()).tools
        answer = await client.call_tool("dryfit_check", REQUEST)  # the client validates structured content against the output schema
        explained = await client.call_tool("dryfit_explain", {"command": "python -m scripts.base_train --depth=8", "gpu": "RTX 4090", "timeline": True})
        plan = await client.call_tool("dryfit_plan", {"gpu": "RTX 4090"})
        offers = await client.call_tool("dryfit_plan", {"depth": 12, "offers": True})
        table = await client.call_tool("dryfit_table", {"gpu": ["t4", "h200"], "depths": [4, 12]})
        doctor = await client.call_tool("dryfit_doctor", {"text": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.42 GiB is free.\n"})
        snapshot = await client.call_tool("dryfit_doctor", {"file": sys.argv[2]})
        wrong = await client.call_tool("dryfit_check", {"gpu": "h10O"})
        return {
            "tools": [t.name for t in tools], "read_only": all(t.annotations.read_only_hint for t in tools), "version": str(client.protocol_version),
            "text": answer.content[0].text, "verdict": answer.structured_content["verdict"], "points": len(explained.structured_content["timeline"]["points"]),
            "plans": len(plan.structured_content["plans"]), "offers": len(offers.structured_content["offers"]), "rows": len(table.structured_content["rows"]), "finding": doctor.structured_content["finding"], "devices": len(snapshot.structured_content["devices"]),
            "errors": [answer.is_error, plan.is_error, wrong.is_error], "hint": json.loads(wrong.content[0].text)["error"]["hint"],
        }


async def main():
    print(json.dumps({mode: await session(mode) for mode in ("legacy", "auto")}))


asyncio.run(main())
