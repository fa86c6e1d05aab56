//! A recount sees what is wrong and puts it right.
