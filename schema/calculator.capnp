# The sample that most implementations of Cap'n Proto RPC come with: a calculator whose numbers and functions
# are objects. The layout and the IDs are those of the others, so that any client works with any server.

@0x85150b117366d14b;

interface Calculator {
  # Evaluates expressions.

  evaluate @0 (expression :Expression) -> (value :Value);
  # Evaluates an expression. The result is an object, not a number: it can be put into the next expression
  # before this one was evaluated.

  struct Expression {
    # An expression.

    union {
      literal @0 :Float64;
      # A number.

      previousResult @1 :Value;
      # The result of another evaluation, which need not be finished.

      parameter @2 :UInt32;
      # An argument, counted from 0. Only allowed in the body of a function.

      call :group {
        # The application of a function to arguments.

        function @3 :Function;
        # The function, of this vat or another.

        params @4 :List(Expression);
        # The arguments.
      }
    }
  }

  interface Value {
    # A number, or what will become one.

    read @0 () -> (value :Float64);
    # Returns the number, when it is known.
  }

  defFunction @1 (paramCount :Int32, body :Expression)
              -> (func :Function);
  # Makes a function of `paramCount` arguments that evaluates `body`.

  interface Function {
    # A function of numbers. Clients may pass their own to the server, which then calls back.

    call @0 (params :List(Float64)) -> (value :Float64);
    # Applies the function.
  }

  getOperator @2 (op :Operator) -> (func :Function);
  # Returns one of the basic functions.

  enum Operator {
    # The functions of two arguments that a server has.

    add @0;
    # The sum.

    subtract @1;
    # The first less the second.

    multiply @2;
    # The product.

    divide @3;
    # The first by the second.
  }
}
