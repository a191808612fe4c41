// Drives a calculator with the C++ library.
//   calculator-client client HOST:PORT      prints the lines that calculator.sh expects
#include "calculator.capnp.h"
#include <capnp/ez-rpc.h>
#include <kj/debug.h>
#include <kj/exception.h>
#include <cmath>
#include <cstdio>
#include <cstring>

using Operator = Calculator::Operator;
using Expression = Calculator::Expression::Builder;

// Begins a call of `function` with `count` parameters, which are still to be set.
static capnp::List<Calculator::Expression>::Builder call(Expression expression,
                                                         Calculator::Function::Client function, uint32_t count) {
  auto call = expression.initCall();
  call.setFunction(kj::mv(function));
  return call.initParams(count);
}

class Power final : public Calculator::Function::Server {
public:
  kj::Promise<void> call(CallContext context) override {
    auto params = context.getParams().getParams();
    KJ_REQUIRE(params.size() == 2, "power takes two parameters");
    context.getResults().setValue(std::pow(params[0], params[1]));
    return kj::READY_NOW;
  }
};

class Session {
public:
  Session(Calculator::Client calculator, kj::WaitScope &wait) : calculator(kj::mv(calculator)), wait(wait) {}

  void run() {
    literal();
    nested();
    pipelined();
    defined();
    direct();
    callback();
    refused();
  }

private:
  Calculator::Client calculator;
  kj::WaitScope &wait;

  Calculator::Function::Client operation(Operator op) {
    auto request = calculator.getOperatorRequest();
    request.setOp(op);
    return request.send().getFunc();
  }

  static auto read(Calculator::Value::Client value) { return value.readRequest().send(); }

  void literal() {
    auto request = calculator.evaluateRequest();
    request.getExpression().setLiteral(123);
    printf("literal %g\n", read(request.send().getValue()).wait(wait).getValue());
  }

  // 123 + 45 - 67
  void nested() {
    auto request = calculator.evaluateRequest();
    auto difference = call(request.getExpression(), operation(Operator::SUBTRACT), 2);
    auto sum = call(difference[0], operation(Operator::ADD), 2);
    sum[0].setLiteral(123);
    sum[1].setLiteral(45);
    difference[1].setLiteral(67);
    printf("nested %g\n", read(request.send().getValue()).wait(wait).getValue());
  }

  // 4 * 6, and that + 3 and + 5, with nothing waited for in between
  void pipelined() {
    auto add = operation(Operator::ADD);
    auto request = calculator.evaluateRequest();
    auto product = call(request.getExpression(), operation(Operator::MULTIPLY), 2);
    product[0].setLiteral(4);
    product[1].setLiteral(6);
    auto value = request.send().getValue();
    auto plus = [&](double addend) {
      auto request = calculator.evaluateRequest();
      auto sum = call(request.getExpression(), add, 2);
      sum[0].setPreviousResult(value);
      sum[1].setLiteral(addend);
      return read(request.send().getValue());
    };
    auto three = plus(3), five = plus(5);
    double first = three.wait(wait).getValue();
    printf("pipelined %g %g\n", first, five.wait(wait).getValue());
  }

  // f(x, y) = x * y - x at (7, 5), inside an expression
  void defined() {
    auto define = calculator.defFunctionRequest();
    define.setParamCount(2);
    auto difference = call(define.getBody(), operation(Operator::SUBTRACT), 2);
    auto product = call(difference[0], operation(Operator::MULTIPLY), 2);
    product[0].setParameter(0);
    product[1].setParameter(1);
    difference[1].setParameter(0);
    auto request = calculator.evaluateRequest();
    auto params = call(request.getExpression(), define.send().getFunc(), 2);
    params[0].setLiteral(7);
    params[1].setLiteral(5);
    printf("defined %g\n", read(request.send().getValue()).wait(wait).getValue());
  }

  // 1 / 4, called on the operator itself
  void direct() {
    auto request = operation(Operator::DIVIDE).callRequest();
    request.setParams({1, 4});
    printf("direct %g\n", request.send().wait(wait).getValue());
  }

  // 2 to the power of (4 + 6), where the power is ours
  void callback() {
    auto request = calculator.evaluateRequest();
    auto power = call(request.getExpression(), kj::heap<Power>(), 2);
    power[0].setLiteral(2);
    auto sum = call(power[1], operation(Operator::ADD), 2);
    sum[0].setLiteral(4);
    sum[1].setLiteral(6);
    printf("callback %g\n", read(request.send().getValue()).wait(wait).getValue());
  }

  // A parameter outside of a function
  void refused() {
    auto request = calculator.evaluateRequest();
    request.getExpression().setParameter(0);
    try {
      read(request.send().getValue()).wait(wait);
      printf("accepted\n");
    } catch (const kj::Exception &) {
      printf("refused\n");
    }
  }
};

int main(int argc, char **argv) {
  if (argc != 3 || strcmp(argv[1], "client") != 0) {
    fprintf(stderr, "usage: %s client HOST:PORT\n", argv[0]);
    return 2;
  }
  capnp::EzRpcClient client(argv[2]);
  Session(client.getMain<Calculator>(), client.getWaitScope()).run();
}
