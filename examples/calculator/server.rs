//! The objects of a calculator: the calculator itself, its values, and two kinds of functions.
//!
//! Calls on an object come one at a time and in order, each on some thread of a pool. A method may simply wait:
//! other objects go on meanwhile. But calls on its *own* object wait behind it, and that is a trap where it
//! waits for somebody who calls back: an expression can contain a function of the client's, and that function
//! may ask this calculator. So a method that is about to wait calls [`Call::allow_next`] first.

use capnp_threads::{Call, Client, Error, Result, Server};

use crate::expression::Expression;
use crate::generated::calculator_capnp::calculator::{
    def_function_params, def_function_results, evaluate_params, evaluate_results, function,
    get_operator_params, get_operator_results, value, Operator,
};
use crate::interface::{CALL, DEF_FUNCTION, EVALUATE, GET_OPERATOR, READ};

/// What the server offers to whoever connects.
pub struct Calculator;

impl Server for Calculator {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        match (call.interface_id(), call.method_id()) {
            EVALUATE => Self::evaluate(call),
            DEF_FUNCTION => Self::define(call),
            GET_OPERATOR => Self::operator(call),
            _ => call.unimplemented(),
        }
    }
}

impl Calculator {
    fn evaluate(call: &mut Call) -> Result<()> {
        let expression = Expression::read(call.params_as::<evaluate_params::Reader>()?.get_expression()?)?;
        call.allow_next();
        let value = Client::new(Value(expression.evaluate(&[])?));
        call.init_results::<evaluate_results::Builder>().set_value(value.into_typed());
        Ok(())
    }

    fn define(call: &mut Call) -> Result<()> {
        let params: def_function_params::Reader = call.params_as()?;
        let body = Expression::read(params.get_body()?)?;
        let count = u32::try_from(params.get_param_count())
            .map_err(|_| Error::failed("a function has no negative number of parameters"))?;
        if body.parameters() > u64::from(count) {
            return Err(Error::failed(format!("the body has {} parameters", body.parameters())));
        }
        let function = Client::new(Defined { count: count as usize, body });
        call.init_results::<def_function_results::Builder>().set_func(function.into_typed());
        Ok(())
    }

    fn operator(call: &mut Call) -> Result<()> {
        let op = call.params_as::<get_operator_params::Reader>()?.get_op()?;
        let function = Client::new(Basic(op));
        call.init_results::<get_operator_results::Builder>().set_func(function.into_typed());
        Ok(())
    }
}

/// A number as an object.
struct Value(f64);

impl Server for Value {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        match (call.interface_id(), call.method_id()) {
            READ => {
                call.init_results::<value::read_results::Builder>().set_value(self.0);
                Ok(())
            }
            _ => call.unimplemented(),
        }
    }
}

/// A function that a client defined.
struct Defined {
    count: usize,
    body: Expression,
}

impl Server for Defined {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        serve_function(call, |call, arguments| {
            if arguments.len() != self.count {
                return Err(Error::failed(format!("{} arguments for {}", arguments.len(), self.count)));
            }
            call.allow_next();
            self.body.evaluate(arguments)
        })
    }
}

/// One of the basic functions.
struct Basic(Operator);

impl Server for Basic {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        serve_function(call, |_, arguments| {
            let &[a, b] = arguments else {
                return Err(Error::failed(format!("{} arguments for an operator", arguments.len())));
            };
            Ok(match self.0 {
                Operator::Add => a + b,
                Operator::Subtract => a - b,
                Operator::Multiply => a * b,
                Operator::Divide => a / b,
            })
        })
    }
}

/// Answers a call on a `Function` with what `apply` makes of the arguments.
pub fn serve_function(call: &mut Call, apply: impl FnOnce(&mut Call, &[f64]) -> Result<f64>) -> Result<()> {
    match (call.interface_id(), call.method_id()) {
        CALL => {
            let params = call.params_as::<function::call_params::Reader>()?.get_params()?;
            let arguments: Vec<f64> = params.iter().collect();
            let number = apply(call, &arguments)?;
            call.init_results::<function::call_results::Builder>().set_value(number);
            Ok(())
        }
        _ => call.unimplemented(),
    }
}
