//! Stubs from the schema: this one line is all a service's build script needs.

fn main() -> Result<(), tollfree_schema::Error> {
    tollfree_schema::build::compile("../../schemas/hash.proto").map(drop)
}
