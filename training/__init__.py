"""How the embedded model is made: corpus, vocabulary, tasks, training, evaluation."""
