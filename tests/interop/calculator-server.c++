// A calculator served with the C++ library.
//   calculator-server server ADDRESS        prints `listening PORT`
#include "calculator.capnp.h"
#include <capnp/ez-rpc.h>
#include <capnp/message.h>
#include <kj/debug.h>
#include <cstdio>
#include <cstring>

using Params = kj::ArrayPtr<const double>;

static kj::Promise<double> evaluate(Calculator::Expression::Reader expression, Params params);

static kj::Promise<double> evaluateCall(Calculator::Expression::Call::Reader call, Params params) {
  auto arguments = KJ_MAP(p, call.getParams()) { return evaluate(p, params); };
  return kj::joinPromises(kj::mv(arguments))
      .then([function = call.getFunction()](kj::Array<double> values) mutable {
        auto request = function.callRequest();
        auto list = request.initParams(values.size());
        for (size_t i = 0; i < values.size(); i++) list.set(i, values[i]);
        return request.send().then([](auto response) { return response.getValue(); });
      });
}

// Reads the expression before it returns; the promise does not refer to it, nor to `params`.
static kj::Promise<double> evaluate(Calculator::Expression::Reader expression, Params params) {
  switch (expression.which()) {
    case Calculator::Expression::LITERAL:
      return expression.getLiteral();
    case Calculator::Expression::PREVIOUS_RESULT:
      return expression.getPreviousResult().readRequest().send().then(
          [](auto response) { return response.getValue(); });
    case Calculator::Expression::PARAMETER:
      KJ_REQUIRE(expression.getParameter() < params.size(), "no such parameter");
      return params[expression.getParameter()];
    case Calculator::Expression::CALL:
      return evaluateCall(expression.getCall(), params);
  }
  KJ_FAIL_REQUIRE("unknown kind of expression");
}

class ValueImpl final : public Calculator::Value::Server {
public:
  explicit ValueImpl(double value) : value(value) {}

  kj::Promise<void> read(ReadContext context) override {
    context.getResults().setValue(value);
    return kj::READY_NOW;
  }

private:
  double value;
};

class DefinedFunction final : public Calculator::Function::Server {
public:
  DefinedFunction(uint32_t count, Calculator::Expression::Reader body) : count(count) {
    message.setRoot(body);
  }

  kj::Promise<void> call(CallContext context) override {
    auto params = KJ_MAP(p, context.getParams().getParams()) -> double { return p; };
    KJ_REQUIRE(params.size() == count, "wrong number of parameters");
    return evaluate(message.getRoot<Calculator::Expression>(), params).then(
        [context](double value) mutable { context.getResults().setValue(value); });
  }

private:
  uint32_t count;
  capnp::MallocMessageBuilder message;
};

class OperatorFunction final : public Calculator::Function::Server {
public:
  explicit OperatorFunction(Calculator::Operator op) : op(op) {}

  kj::Promise<void> call(CallContext context) override {
    auto params = context.getParams().getParams();
    KJ_REQUIRE(params.size() == 2, "an operator takes two parameters");
    context.getResults().setValue(apply(params[0], params[1]));
    return kj::READY_NOW;
  }

private:
  Calculator::Operator op;

  double apply(double a, double b) {
    switch (op) {
      case Calculator::Operator::ADD: return a + b;
      case Calculator::Operator::SUBTRACT: return a - b;
      case Calculator::Operator::MULTIPLY: return a * b;
      case Calculator::Operator::DIVIDE: return a / b;
    }
    KJ_FAIL_REQUIRE("unknown operator");
  }
};

class CalculatorImpl final : public Calculator::Server {
public:
  kj::Promise<void> evaluate(EvaluateContext context) override {
    return ::evaluate(context.getParams().getExpression(), nullptr).then([context](double value) mutable {
      context.getResults().setValue(kj::heap<ValueImpl>(value));
    });
  }

  kj::Promise<void> defFunction(DefFunctionContext context) override {
    auto params = context.getParams();
    context.getResults().setFunc(kj::heap<DefinedFunction>(params.getParamCount(), params.getBody()));
    return kj::READY_NOW;
  }

  kj::Promise<void> getOperator(GetOperatorContext context) override {
    context.getResults().setFunc(kj::heap<OperatorFunction>(context.getParams().getOp()));
    return kj::READY_NOW;
  }
};

int main(int argc, char **argv) {
  if (argc != 3 || strcmp(argv[1], "server") != 0) {
    fprintf(stderr, "usage: %s server ADDRESS\n", argv[0]);
    return 2;
  }
  capnp::EzRpcServer server(kj::heap<CalculatorImpl>(), argv[2]);
  auto &wait = server.getWaitScope();
  printf("listening %u\n", (unsigned)server.getPort().wait(wait));
  fflush(stdout);
  kj::NEVER_DONE.wait(wait);
}
