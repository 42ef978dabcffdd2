"""Studies: many runs with one question, and a page that answers it.

``config`` reads the TOML file and plans the runs, ``engine`` brings them to their end, ``workers`` shares them out to
processes, and ``analyses`` makes the page of what came out. A study's folder:

    runs/STUDY/  study.toml  study.md  study.html  figures/
                 configs/    a config for each run, which ``minilm train`` runs too
                 logs/       what each run had to say
                 RUN/        an ordinary run's folder each
"""
