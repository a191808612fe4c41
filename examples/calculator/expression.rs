//! Expressions: read from a message, written into one, and evaluated.
//!
//! Both sides use this: the client writes what it wants to know, the server reads and evaluates it. A client is
//! a value like any other, `Send` and `Sync`, so it can stand inside an ordinary enum, and an expression can be
//! kept (as the body of a function is) and be evaluated by any thread.

use capnp_threads::{Error, Promise, Result};

use crate::generated::calculator_capnp::calculator::{expression, function, value};

/// An expression, as in `schema/calculator.capnp`.
pub enum Expression {
    Literal(f64),
    /// The result of another evaluation, which need not be finished.
    Previous(value::Client),
    /// An argument of the function that this expression is the body of, counted from 0.
    Parameter(u32),
    /// A function, of this vat or another, and what it is applied to.
    Call(function::Client, Vec<Expression>),
}

impl Expression {
    /// Takes an expression out of a message, with the objects that it refers to.
    pub fn read(from: expression::Reader) -> Result<Self> {
        Ok(match from.which()? {
            expression::Literal(number) => Self::Literal(number),
            expression::PreviousResult(value) => Self::Previous(value?),
            expression::Parameter(index) => Self::Parameter(index),
            expression::Call(call) => {
                let arguments = call.get_params()?.iter().map(Self::read).collect::<Result<_>>()?;
                Self::Call(call.get_function()?, arguments)
            }
        })
    }

    /// Puts the expression into a message. Objects go along as references: to whoever reads the message they
    /// are clients too.
    pub fn write(&self, mut to: expression::Builder) {
        match self {
            Self::Literal(number) => to.set_literal(*number),
            Self::Previous(value) => to.set_previous_result(value.clone()),
            Self::Parameter(index) => to.set_parameter(*index),
            Self::Call(function, arguments) => {
                let mut call = to.init_call();
                call.set_function(function.clone());
                let mut list = call.init_params(arguments.len() as u32);
                for (i, argument) in arguments.iter().enumerate() {
                    argument.write(list.reborrow().get(i as u32));
                }
            }
        }
    }

    /// How many parameters a function needs that has this as its body.
    pub fn parameters(&self) -> u64 {
        match self {
            Self::Literal(_) | Self::Previous(_) => 0,
            Self::Parameter(index) => u64::from(*index) + 1,
            Self::Call(_, arguments) => arguments.iter().map(Self::parameters).max().unwrap_or(0),
        }
    }

    /// The number that the expression comes to, where the parameters have these values.
    ///
    /// Waits for functions and for values of other vats, so whoever calls this from a method lets the object's
    /// next call in before: one of those functions may want something of the same object.
    pub fn evaluate(&self, parameters: &[f64]) -> Result<f64> {
        self.start(parameters)?.wait()
    }

    /// Begins to evaluate, as far as that goes without the answer of the last call that it takes.
    fn start(&self, parameters: &[f64]) -> Result<Pending> {
        match self {
            Self::Literal(number) => Ok(Pending::Known(*number)),
            Self::Previous(value) => Ok(Pending::Coming(number(value))),
            Self::Parameter(index) => match parameters.get(*index as usize) {
                Some(number) => Ok(Pending::Known(*number)),
                None => Err(Error::failed(format!("there is no parameter {index} here"))),
            },
            Self::Call(function, arguments) => {
                // First start all, then wait for each: calls that stand side by side run at the same time.
                let started = arguments.iter().map(|a| a.start(parameters)).collect::<Result<Vec<_>>>()?;
                let numbers = started.into_iter().map(Pending::wait).collect::<Result<Vec<_>>>()?;
                Ok(Pending::Coming(apply(function, &numbers)))
            }
        }
    }
}

/// A number, or what will become one.
enum Pending {
    Known(f64),
    Coming(Promise<f64>),
}

impl Pending {
    fn wait(self) -> Result<f64> {
        match self {
            Pending::Known(number) => Ok(number),
            Pending::Coming(promise) => promise.wait(),
        }
    }
}

/// The number that a value comes to. Does not wait.
pub fn number(value: &value::Client) -> Promise<f64> {
    value.read().map(|response| Ok(response.get()?.get_value()))
}

/// What a function comes to at `arguments`. Does not wait.
pub fn apply(function: &function::Client, arguments: &[f64]) -> Promise<f64> {
    let answer = function.call(|mut params| params.set_params(arguments));
    answer.map(|response| Ok(response.get()?.get_value()))
}
