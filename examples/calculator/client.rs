//! The well-known session with a calculator.
//!
//! Most steps make several calls and wait once, at the end: what the earlier calls return is used before it is
//! there. In `callback`, two vats take turns: the server, while it evaluates, calls a function of ours.

use capnp_threads::{Call, Client, Error, Result, Server};

use crate::expression::Expression::{self, Literal, Parameter, Previous};
use crate::generated::calculator_capnp::calculator::Operator;
use crate::interface::{apply, define, evaluate, operator, read};
use crate::server::serve_function;

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
pub fn drive(calculator: Client) -> Result<()> {
    let session = Session { calculator };
    for step in STEPS {
        let mut line = vec![step.name.to_owned()];
        line.extend(step.results(&session)?);
        println!("{}", line.join(" "));
    }
    Ok(())
}

/// Runs the session and prints what it does.
pub fn show(calculator: Client) -> Result<()> {
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
    calculator: Client,
}

impl Session {
    fn operator(&self, op: Operator) -> Client {
        operator(&self.calculator, op)
    }

    /// The value of an expression, as an object. Does not wait.
    fn value(&self, expression: &Expression) -> Result<Client> {
        evaluate(&self.calculator, expression)
    }

    /// The value of an expression, as a number.
    fn number(&self, expression: &Expression) -> Result<f64> {
        read(&self.value(expression)?).wait()
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
        let product = self.value(&call(&multiply, [Literal(4.0), Literal(6.0)]))?;
        let plus = |addend| self.value(&call(&add, [Previous(product.clone()), Literal(addend)]));
        let (three, five) = (read(&plus(3.0)?), read(&plus(5.0)?));
        Ok(vec![three.wait()?, five.wait()?])
    }

    fn defined(&self) -> Result<Vec<f64>> {
        let (multiply, subtract) = (self.operator(Operator::Multiply), self.operator(Operator::Subtract));
        let product = call(&multiply, [Parameter(0), Parameter(1)]);
        let function = define(&self.calculator, 2, &call(&subtract, [product, Parameter(0)]))?;
        Ok(vec![self.number(&call(&function, [Literal(7.0), Literal(5.0)]))?])
    }

    fn direct(&self) -> Result<Vec<f64>> {
        Ok(vec![apply(&self.operator(Operator::Divide), &[1.0, 4.0]).wait()?])
    }

    fn callback(&self) -> Result<Vec<f64>> {
        self.power_of_sum(&Client::new(Power))
    }

    fn refused(&self) -> Result<Vec<f64>> {
        match self.number(&Parameter(0)) {
            Ok(number) => Err(Error::failed(format!("a parameter outside of a function came to {number}"))),
            Err(_) => Ok(vec![]),
        }
    }

    fn reentrant(&self) -> Result<Vec<f64>> {
        let calculator = self.calculator.clone();
        self.power_of_sum(&Client::new(PowerByMultiplying { calculator }))
    }

    /// 2 to the power of (4 + 6).
    fn power_of_sum(&self, power: &Client) -> Result<Vec<f64>> {
        let sum = call(&self.operator(Operator::Add), [Literal(4.0), Literal(6.0)]);
        Ok(vec![self.number(&call(power, [Literal(2.0), sum]))?])
    }
}

fn call(function: &Client, arguments: impl Into<Vec<Expression>>) -> Expression {
    Expression::Call(function.clone(), arguments.into())
}

/// A function of the client's: the first argument to the power of the second.
struct Power;

impl Server for Power {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        serve_function(call, |_, arguments| {
            let [base, exponent] = two(arguments)?;
            Ok(base.powf(exponent))
        })
    }
}

/// The same, for whole exponents, by multiplications that it leaves to the calculator.
struct PowerByMultiplying {
    calculator: Client,
}

impl Server for PowerByMultiplying {
    fn dispatch(&self, call_of_ours: &mut Call) -> Result<()> {
        serve_function(call_of_ours, |_, arguments| {
            let [base, exponent] = two(arguments)?;
            let multiply = operator(&self.calculator, Operator::Multiply);
            let mut power = evaluate(&self.calculator, &Literal(1.0))?;
            for _ in 0..exponent as u32 {
                // Each factor is sent before the last product has come.
                power = evaluate(&self.calculator, &call(&multiply, [Previous(power), Literal(base)]))?;
            }
            read(&power).wait()
        })
    }
}

fn two(arguments: &[f64]) -> Result<[f64; 2]> {
    arguments.try_into().map_err(|_| Error::failed(format!("{} arguments for power", arguments.len())))
}
