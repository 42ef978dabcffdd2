"""Studies: many runs that answer one question, and the page with the answer.

``config`` reads a study's file, ``plan`` plans its runs, ``engine`` runs them, in this process or in several
(``workers``), and ``study_page`` writes the page. The study's question, a module of ``questions``, determines the
contents of the page from the finished runs (``finished``). A study's folder:

    runs/STUDY/  study.toml  study.md  study.html  figures/  results.csv
                 configs/    a config for each run, which ``minilm train`` accepts too
                 logs/       the output of each run
                 RUN/        an ordinary run's folder for each run
"""
