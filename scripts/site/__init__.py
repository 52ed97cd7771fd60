"""Parts of the documentation site: pages made from the code, and the execution of its examples."""
