SETTINGS = [
    r"an accuracy of 90% has a standard error of 1\.3 points",  # counted from 500 images
    r"cosine / 0\.07|--objective\.label-dropout 0\.1",
]
