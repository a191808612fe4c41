//! A closure that fills in params and returns what a setter of the `capnp` crate does.

#[path = "../../examples/generated/mod.rs"]
mod generated;

use generated::calculator_capnp::calculator;
use generated::calculator_capnp::calculator::expression;

fn evaluate(calculator: &calculator::Client, expression: expression::Reader) {
    calculator.evaluate(|mut params| params.set_expression(expression)).on_ready(drop);
}

fn main() {}
