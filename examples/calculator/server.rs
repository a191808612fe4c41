//! The objects of a calculator: the calculator itself, its values, and two kinds of functions.
//!
//! Calls on an object come one at a time and in order, each on some thread of a pool. A method may simply wait:
//! other objects go on meanwhile. But calls on its *own* object wait behind it, and that is a trap where it
//! waits for somebody who calls back: an expression can contain a function of the client's, and that function
//! may ask this calculator. So a method that is about to wait calls `Results::allow_next` first.

use capnp_threads::{Capability, Error, Result};

use crate::expression::Expression;
use crate::generated::calculator_capnp::calculator::{self, function, value, Operator};

/// What the server offers to whoever connects.
pub struct Calculator;

impl calculator::Server for Calculator {
    fn evaluate(
        &self,
        params: calculator::EvaluateParams,
        mut results: calculator::EvaluateResults,
    ) -> Result<()> {
        let expression = Expression::read(params.get()?.get_expression()?)?;
        results.allow_next();
        results.get().set_value(value::Client::new(Value(expression.evaluate(&[])?)));
        Ok(())
    }

    fn def_function(
        &self,
        params: calculator::DefFunctionParams,
        mut results: calculator::DefFunctionResults,
    ) -> Result<()> {
        let params = params.get()?;
        let body = Expression::read(params.get_body()?)?;
        let count = u32::try_from(params.get_param_count())
            .map_err(|_| Error::failed("a function has no negative number of parameters"))?;
        if body.parameters() > u64::from(count) {
            return Err(Error::failed(format!("the body has {} parameters", body.parameters())));
        }
        let function = Defined { count: count as usize, body };
        results.get().set_func(function::Client::new(function));
        Ok(())
    }

    fn get_operator(
        &self,
        params: calculator::GetOperatorParams,
        mut results: calculator::GetOperatorResults,
    ) -> Result<()> {
        let operator = Basic(params.get()?.get_op()?);
        results.get().set_func(function::Client::new(operator));
        Ok(())
    }
}

/// A number as an object.
struct Value(f64);

impl value::Server for Value {
    fn read(&self, _: value::ReadParams, mut results: value::ReadResults) -> Result<()> {
        results.get().set_value(self.0);
        Ok(())
    }
}

/// A function that a client defined.
struct Defined {
    count: usize,
    body: Expression,
}

impl function::Server for Defined {
    fn call(&self, params: function::CallParams, mut results: function::CallResults) -> Result<()> {
        let arguments = arguments(&params)?;
        if arguments.len() != self.count {
            return Err(Error::failed(format!("{} arguments for {}", arguments.len(), self.count)));
        }
        results.allow_next();
        let number = self.body.evaluate(&arguments)?;
        results.get().set_value(number);
        Ok(())
    }
}

/// One of the basic functions.
struct Basic(Operator);

impl function::Server for Basic {
    fn call(&self, params: function::CallParams, mut results: function::CallResults) -> Result<()> {
        let [a, b] = two_arguments(&params)?;
        results.get().set_value(match self.0 {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
        });
        Ok(())
    }
}

/// What a function is called with.
fn arguments(params: &function::CallParams) -> Result<Vec<f64>> {
    Ok(params.get()?.get_params()?.iter().collect())
}

/// The same, for a function of two arguments.
pub fn two_arguments(params: &function::CallParams) -> Result<[f64; 2]> {
    let arguments = arguments(params)?;
    let wrong = || Error::failed(format!("{} arguments for a function of 2", arguments.len()));
    arguments.as_slice().try_into().map_err(|_| wrong())
}
