//! The well-known session with a calculator.
//!
//! Most steps make several calls and wait once, at the end. An object that a call returns is taken from the
//! `pipeline`, out of results that are yet to come: that is *promise pipelining*. Calls on it are sent right away
//! and wait at the other end, where the object will be, so a chain of calls costs one round trip. In `callback`, two vats take turns: the server, while it evaluates, calls a function of ours.

use capnp_threads::{Capability, Error, Result};

use crate::expression::Expression::{self, Literal, Parameter, Previous};
use crate::expression::{apply, number};
use crate::generated::calculator_capnp::calculator::{self, function, value, Operator};
use crate::server::two_arguments;

/// One thing to try.
struct Step {
    name: &'static str,
    /// What is calculated, as one would write it.
    what: &'static str,
    /// What there is to learn.
    how: &'static str,
    run: fn(&Session) -> Result<Vec<f64>>,
}

/// The session that every client of `tests/interop` has, in this order.
const STEPS: &[Step] = &[
    Step {
        name: "literal",
        what: "123",
        how: "evaluate returns an object; it is read before it has come: one round trip",
        run: Session::literal,
    },
    Step {
        name: "nested",
        what: "123 + 45 - 67",
        how: "the operators are objects of the server's, put into the expression before they have come",
        run: Session::nested,
    },
    Step {
        name: "pipelined",
        what: "4 * 6, then + 3 and + 5",
        how: "two expressions use the result of a third, and nothing is waited for in between",
        run: Session::pipelined,
    },
    Step {
        name: "defined",
        what: "x * y - x at (7, 5)",
        how: "a function that the server keeps, used inside an expression",
        run: Session::defined,
    },
    Step {
        name: "direct",
        what: "1 / 4",
        how: "a function of the server's, called from here",
        run: Session::direct,
    },
    Step {
        name: "callback",
        what: "2 ^ (4 + 6)",
        how: "a function of ours, called by the server in the midst of an expression",
        run: Session::callback,
    },
    Step {
        name: "refused",
        what: "x",
        how: "a parameter outside of a function: the call on the result fails with the reason of the first",
        run: Session::refused,
    },
];

/// What another implementation's server need not be able to do.
const ALSO: &[Step] = &[Step {
    name: "reentrant",
    what: "2 ^ (4 + 6)",
    how: "a function of ours that asks the calculator which is waiting for it",
    run: Session::reentrant,
}];

/// Runs the session and prints one line for each step, as `tests/interop/calculator.sh` expects them.
pub fn drive(calculator: calculator::Client) -> Result<()> {
    let session = Session { calculator };
    for step in STEPS {
        let mut line = vec![step.name.to_owned()];
        line.extend(step.results(&session)?);
        println!("{}", line.join(" "));
    }
    Ok(())
}

/// Runs the session and prints what it does.
pub fn show(calculator: calculator::Client) -> Result<()> {
    let session = Session { calculator };
    for step in STEPS.iter().chain(ALSO) {
        let results = step.results(&session)?.join(" and ");
        let results = if results.is_empty() { "is refused".to_owned() } else { format!("= {results}") };
        println!("{:<10} {} {results}\n           ({})", step.name, step.what, step.how);
    }
    Ok(())
}

impl Step {
    fn results(&self, session: &Session) -> Result<Vec<String>> {
        Ok((self.run)(session)?.iter().map(f64::to_string).collect())
    }
}

struct Session {
    calculator: calculator::Client,
}

impl Session {
    fn operator(&self, op: Operator) -> function::Client {
        operator(&self.calculator, op)
    }

    /// The value of an expression, as an object. Does not wait.
    fn value(&self, expression: &Expression) -> value::Client {
        evaluate(&self.calculator, expression)
    }

    /// The value of an expression, as a number.
    fn number(&self, expression: &Expression) -> Result<f64> {
        number(&self.value(expression)).wait()
    }

    fn literal(&self) -> Result<Vec<f64>> {
        Ok(vec![self.number(&Literal(123.0))?])
    }

    fn nested(&self) -> Result<Vec<f64>> {
        let (add, subtract) = (self.operator(Operator::Add), self.operator(Operator::Subtract));
        let sum = call(&add, [Literal(123.0), Literal(45.0)]);
        Ok(vec![self.number(&call(&subtract, [sum, Literal(67.0)]))?])
    }

    fn pipelined(&self) -> Result<Vec<f64>> {
        let (add, multiply) = (self.operator(Operator::Add), self.operator(Operator::Multiply));
        let product = self.value(&call(&multiply, [Literal(4.0), Literal(6.0)]));
        let plus = |addend| self.value(&call(&add, [Previous(product.clone()), Literal(addend)]));
        let (three, five) = (number(&plus(3.0)), number(&plus(5.0)));
        Ok(vec![three.wait()?, five.wait()?])
    }

    fn defined(&self) -> Result<Vec<f64>> {
        let (multiply, subtract) = (self.operator(Operator::Multiply), self.operator(Operator::Subtract));
        let product = call(&multiply, [Parameter(0), Parameter(1)]);
        let body = call(&subtract, [product, Parameter(0)]);
        let mut request = self.calculator.def_function_request();
        request.get().set_param_count(2);
        body.write(request.get().init_body());
        let function = request.send().pipeline.get().get_func();
        Ok(vec![self.number(&call(&function, [Literal(7.0), Literal(5.0)]))?])
    }

    fn direct(&self) -> Result<Vec<f64>> {
        Ok(vec![apply(&self.operator(Operator::Divide), &[1.0, 4.0]).wait()?])
    }

    fn callback(&self) -> Result<Vec<f64>> {
        self.power_of_sum(&function::Client::new(Power))
    }

    fn refused(&self) -> Result<Vec<f64>> {
        match self.number(&Parameter(0)) {
            Ok(number) => Err(Error::failed(format!("a parameter outside of a function came to {number}"))),
            Err(_) => Ok(vec![]),
        }
    }

    fn reentrant(&self) -> Result<Vec<f64>> {
        let calculator = self.calculator.clone();
        self.power_of_sum(&function::Client::new(PowerByMultiplying { calculator }))
    }

    /// 2 to the power of (4 + 6).
    fn power_of_sum(&self, power: &function::Client) -> Result<Vec<f64>> {
        let sum = call(&self.operator(Operator::Add), [Literal(4.0), Literal(6.0)]);
        Ok(vec![self.number(&call(power, [Literal(2.0), sum]))?])
    }
}

fn operator(calculator: &calculator::Client, op: Operator) -> function::Client {
    calculator.get_operator(|mut params| params.set_op(op)).pipeline.get().get_func()
}

fn evaluate(calculator: &calculator::Client, expression: &Expression) -> value::Client {
    calculator.evaluate(|params| expression.write(params.init_expression())).pipeline.get().get_value()
}

fn call(function: &function::Client, arguments: impl Into<Vec<Expression>>) -> Expression {
    Expression::Call(function.clone(), arguments.into())
}

/// A function of the client's: the first argument to the power of the second.
struct Power;

impl function::Server for Power {
    fn call(&self, params: function::CallParams, mut results: function::CallResults) -> Result<()> {
        let [base, exponent] = two_arguments(&params)?;
        results.get().set_value(base.powf(exponent));
        Ok(())
    }
}

/// The same, for whole exponents, by multiplications that it leaves to the calculator.
struct PowerByMultiplying {
    calculator: calculator::Client,
}

impl function::Server for PowerByMultiplying {
    fn call(&self, params: function::CallParams, mut results: function::CallResults) -> Result<()> {
        let [base, exponent] = two_arguments(&params)?;
        let multiply = operator(&self.calculator, Operator::Multiply);
        let mut power = evaluate(&self.calculator, &Literal(1.0));
        for _ in 0..exponent as u32 {
            // Each factor is sent before the last product has come.
            power = evaluate(&self.calculator, &call(&multiply, [Previous(power), Literal(base)]));
        }
        results.get().set_value(number(&power).wait()?);
        Ok(())
    }
}
