"""The benchmark: what Strongroom costs and what it saves, as ratios against plain tools in the same run.

    organisation.py cloudtrail.py flows.py generate.py     the input: an imaginary organisation's logs, from a seed
    measure.py report.py                                    how a contest is run; how it is told
    questions.py                                            what an investigator asks
    acknowledge.py seal.py stages.py pipeline.py ask.py http_overhead.py         one question each

`make bench` runs all of it; README.md says what each figure means.
"""
