#!/usr/bin/env python3
"""Drives a calculator with pycapnp.

  calculator_client.py client HOST:PORT     prints the lines that calculator.sh expects
"""
import asyncio
import sys

import capnp

from calculator_schema import Calculator


class Power(Calculator.Function.Server):
    async def call(self, params, **_):
        if len(params) != 2:
            raise ValueError("power takes two parameters")
        return params[0] ** params[1]


def call(function, *params):
    return {"call": {"function": function, "params": list(params)}}


def literal(value):
    return {"literal": value}


class Session:
    def __init__(self, calculator):
        self.calculator = calculator

    def operation(self, name):
        return self.calculator.getOperator(op=name).func

    def value(self, expression):
        return self.calculator.evaluate(expression=expression).value

    async def read(self, expression):
        return (await self.value(expression).read()).value

    async def run(self):
        print(f"literal {await self.read(literal(123)):g}")
        await self.nested()
        await self.pipelined()
        await self.defined()
        await self.direct()
        await self.callback()
        await self.refused()

    async def nested(self):
        """123 + 45 - 67"""
        total = call(self.operation("add"), literal(123), literal(45))
        print(f"nested {await self.read(call(self.operation('subtract'), total, literal(67))):g}")

    async def pipelined(self):
        """4 * 6, and that + 3 and + 5, with nothing waited for in between"""
        add = self.operation("add")
        product = self.value(call(self.operation("multiply"), literal(4), literal(6)))
        three, five = (
            self.value(call(add, {"previousResult": product}, literal(addend))).read() for addend in (3, 5)
        )
        print(f"pipelined {(await three).value:g} {(await five).value:g}")

    async def defined(self):
        """f(x, y) = x * y - x at (7, 5), inside an expression"""
        x, y = {"parameter": 0}, {"parameter": 1}
        product = call(self.operation("multiply"), x, y)
        body = call(self.operation("subtract"), product, x)
        function = self.calculator.defFunction(paramCount=2, body=body).func
        print(f"defined {await self.read(call(function, literal(7), literal(5))):g}")

    async def direct(self):
        """1 / 4, called on the operator itself"""
        print(f"direct {(await self.operation('divide').call([1, 4])).value:g}")

    async def callback(self):
        """2 to the power of (4 + 6), where the power is ours"""
        total = call(self.operation("add"), literal(4), literal(6))
        print(f"callback {await self.read(call(Power(), literal(2), total)):g}")

    async def refused(self):
        """A parameter outside of a function"""
        try:
            await self.read({"parameter": 0})
            print("accepted")
        except capnp.KjException:
            print("refused")


async def main():
    if len(sys.argv) != 3 or sys.argv[1] != "client":
        sys.exit(__doc__)
    host, port = sys.argv[2].rsplit(":", 1)
    async with capnp.kj_loop():
        stream = await capnp.AsyncIoStream.create_connection(host, port)
        await Session(capnp.TwoPartyClient(stream).bootstrap().cast_as(Calculator)).run()


asyncio.run(main())
