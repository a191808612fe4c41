# The annotations that the generators of Rust code know. They know them by their IDs.

@0xfb058bf700e44d22;

annotation name @0xc2fe4c6d100166d0 (struct, field, group, union, enum, enumerant, interface, param) :Text;
# Another name in the code.

annotation parentModule @0xabee386cd1450364 (file) :Text;
# The path of the module that the code for the file stands in.

annotation option @0xabfef22c4ee1964e (field) :Void;
# The getter tells an unset pointer from one that is set.
