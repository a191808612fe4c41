# The smallest example.

@0xdda81a5f4ee4d64d;

interface Hello {
  # Greets.

  sayHello @0 (name :Text) -> (greeting :Text);
  # Returns a greeting for `name`.
}
