"""Cache adapters: SpecKV behind the interfaces of inference engines. Importing this package imports none of them."""
