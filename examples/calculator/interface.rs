//! The methods of `schema/calculator.capnp`: their numbers, for servers, and as functions, for callers.
//!
//! A call names its method by the ID of the interface and the method's ordinal there. Everything else that
//! goes over the wire, the params and the results, is a struct with a generated builder and reader.
//!
//! None of the functions here waits for an answer. Those that return a [`Client`] return it at once, out of
//! results that are yet to come: that is *promise pipelining*. Calls on such a client are sent right away and
//! wait at the other end, where the object will be, so a chain of calls costs one round trip.

use capnp::traits::HasTypeId;
use capnp_threads::{Client, Pipeline, Promise, Request, Result};

use crate::expression::Expression;
use crate::generated::calculator_capnp::calculator::{
    self, def_function_params, evaluate_params, function, get_operator_params, value, Operator,
};

/// An interface, and an ordinal in it.
pub type Method = (u64, u16);

pub const EVALUATE: Method = (calculator::Client::TYPE_ID, 0);
pub const DEF_FUNCTION: Method = (calculator::Client::TYPE_ID, 1);
pub const GET_OPERATOR: Method = (calculator::Client::TYPE_ID, 2);
pub const READ: Method = (value::Client::TYPE_ID, 0);
pub const CALL: Method = (function::Client::TYPE_ID, 0);

/// Where the results of `evaluate`, `defFunction` and `getOperator` have their capability: in the first of the
/// struct's pointer fields.
const CAPABILITY: u16 = 0;

/// `Calculator.evaluate`: the value of an expression.
pub fn evaluate(calculator: &Client, expression: &Expression) -> Result<Client> {
    let mut request = begin(calculator, EVALUATE);
    let params: evaluate_params::Builder = request.init();
    expression.write(params.init_expression())?;
    Ok(capability(request.send().pipeline))
}

/// `Calculator.defFunction`: a function of `count` parameters.
pub fn define(calculator: &Client, count: i32, body: &Expression) -> Result<Client> {
    let mut request = begin(calculator, DEF_FUNCTION);
    let mut params: def_function_params::Builder = request.init();
    params.set_param_count(count);
    body.write(params.init_body())?;
    Ok(capability(request.send().pipeline))
}

/// `Calculator.getOperator`: one of the basic functions.
pub fn operator(calculator: &Client, op: Operator) -> Client {
    let mut request = begin(calculator, GET_OPERATOR);
    request.init::<get_operator_params::Builder>().set_op(op);
    capability(request.send().pipeline)
}

/// `Value.read`: the number.
pub fn read(value: &Client) -> Promise<f64> {
    let sent = begin(value, READ).send();
    sent.promise.map(|response| Ok(response.get_as::<value::read_results::Reader>()?.get_value()))
}

/// `Function.call`: the function at `arguments`.
pub fn apply(function: &Client, arguments: &[f64]) -> Promise<f64> {
    let mut request = begin(function, CALL);
    let params: function::call_params::Builder = request.init();
    let mut list = params.init_params(arguments.len() as u32);
    for (i, argument) in arguments.iter().enumerate() {
        list.set(i as u32, *argument);
    }
    let sent = request.send();
    sent.promise.map(|response| Ok(response.get_as::<function::call_results::Reader>()?.get_value()))
}

fn begin(target: &Client, (interface, ordinal): Method) -> Request {
    target.request(interface, ordinal)
}

fn capability(results: Pipeline) -> Client {
    results.field(CAPABILITY).client()
}
