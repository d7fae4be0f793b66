"""What any figure of a report must keep to."""

from matplotlib.backends.backend_agg import FigureCanvasAgg


def assert_nothing_hidden(figure):
    """No legend lies over the axes of any panel, and none is cut off by the figure's edge."""
    FigureCanvasAgg(figure).draw()
    legends = [axes.get_legend() for axes in figure.axes] + list(figure.legends)
    for legend in filter(None, legends):
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not box.overlaps(axes.get_window_extent()), f"{legend.get_texts()} hides a panel"
        whole = figure.bbox.padded(1)
        assert whole.contains(*box.min), "the legend is cut off"
        assert whole.contains(*box.max), "the legend is cut off"
