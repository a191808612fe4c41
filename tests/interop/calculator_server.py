#!/usr/bin/env python3
"""A calculator served with pycapnp.

  calculator_server.py server HOST:PORT     prints `listening PORT`
"""
import asyncio
import operator
import sys

import capnp

from calculator_schema import Calculator

OPERATORS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
}


async def evaluate(expression, params=()):
    kind = expression.which()
    if kind == "literal":
        return expression.literal
    if kind == "previousResult":
        return (await expression.previousResult.read()).value
    if kind == "parameter":
        if expression.parameter >= len(params):
            raise ValueError("no such parameter")
        return params[expression.parameter]
    if kind == "call":
        call = expression.call
        values = [await evaluate(p, params) for p in call.params]
        return (await call.function.call(values)).value
    raise ValueError(f"unknown kind of expression: {kind}")


class Value(Calculator.Value.Server):
    def __init__(self, value):
        self.value = value

    async def read(self, **_):
        return self.value


class DefinedFunction(Calculator.Function.Server):
    def __init__(self, count, body):
        self.count = count
        self.body = body.as_builder()  # a copy: the call's own ends with the call

    async def call(self, params, **_):
        if len(params) != self.count:
            raise ValueError("wrong number of parameters")
        return await evaluate(self.body, list(params))


class OperatorFunction(Calculator.Function.Server):
    def __init__(self, op):
        self.apply = OPERATORS[str(op)]

    async def call(self, params, **_):
        if len(params) != 2:
            raise ValueError("an operator takes two parameters")
        return self.apply(params[0], params[1])


class CalculatorImpl(Calculator.Server):
    async def evaluate(self, expression, **_):
        return Value(await evaluate(expression))

    async def defFunction(self, paramCount, body, **_):
        return DefinedFunction(paramCount, body)

    async def getOperator(self, op, **_):
        return OperatorFunction(op)


async def connected(stream):
    await capnp.TwoPartyServer(stream, bootstrap=CalculatorImpl()).on_disconnect()


async def main():
    if len(sys.argv) != 3 or sys.argv[1] != "server":
        sys.exit(__doc__)
    host, port = sys.argv[2].rsplit(":", 1)
    async with capnp.kj_loop():
        server = await capnp.AsyncIoStream.create_server(connected, host, port)
        print("listening", server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


asyncio.run(main())
