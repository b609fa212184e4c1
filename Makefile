# For those who have make; `.ci/dev` does the work and says what else it can.
example test lint picture shell:
	@sh .ci/dev $@

.PHONY: example test lint picture shell
