"""The consensus service: validators apply the commands log and certify it by quorum."""
